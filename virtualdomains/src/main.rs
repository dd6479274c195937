//! One executable for all account commands.
#![forbid(unsafe_code)]

program::main!(
    "vadmin",
    [
        virtualdomains::VADDDOMAIN,
        virtualdomains::VADDALIASDOMAIN,
        virtualdomains::VDELDOMAIN,
        virtualdomains::VADDUSER,
        virtualdomains::VDELUSER,
        virtualdomains::VMODUSER,
        virtualdomains::VPASSWD,
        virtualdomains::VUSERINFO,
        virtualdomains::VDOMINFO,
        virtualdomains::VALIAS,
    ]
);

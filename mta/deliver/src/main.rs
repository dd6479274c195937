//! The executable of everything that runs as the recipient.
#![forbid(unsafe_code)]

use mta_deliver::{getpw, local, newu, tools, virtual_delivery, worker};

program::main!(
    "qmail-deliver",
    [
        local::PROGRAM,
        virtual_delivery::PROGRAM,
        worker::PROGRAM,
        getpw::PROGRAM,
        newu::PROGRAM,
        tools::forward::PROGRAM,
        tools::condredirect::PROGRAM,
        tools::bouncesaying::PROGRAM,
        tools::except::PROGRAM,
        tools::preline::PROGRAM,
    ]
);

//! The table of the program.

use program::{Control, ExitCodeDoc, Operands, Place, Spec, Variable};

pub(crate) static SPEC: Spec = Spec {
    name: "qmail-remote",
    summary: "send one message to a remote host by SMTP",
    section: 8,
    place: Place::Sbin,
    operands: Operands { synopsis: "host sender qqeh size recipient ...", min: 0, max: None },
    variables: &[
        Variable::new("HELOHOST", "our name in EHLO; overrides the control file"),
        Variable::new("SMTPROUTE", "routes that go before smtproutes: domain:relay:port, one a line"),
        Variable::new("SMTPROUTESFILE", "file to read instead of smtproutes"),
        Variable::new(
            "MIN_PENALTY",
            "seconds that a host which does not answer is passed over, 0: never, negative: exactly; default 3600",
        ),
        Variable::new("MAX_TOLERANCE", "errors of a host within so many seconds count as one; default 120"),
        Variable::new(
            "QUEUEDIR",
            "queue directory, for the table of such hosts; default /var/indimail/queue",
        ),
        Variable::new("CERTDIR", "directory of certificates; default /etc/indimail/certs"),
        Variable::new("CONTROLDIR", "directory of control files; default /etc/indimail/control"),
        Variable::new("SYSCONFDIR", "directory of configuration; default /etc/indimail"),
    ],
    controls: &[
        Control::new("me", "this host's name; required unless helohost is there"),
        Control::new("helohost", "our name in EHLO; default me"),
        Control::new(
            "smtproutes",
            "domain:relay:port; .domain: everything below it; :relay: everything; !@: bounces",
        ),
        Control::new("timeoutconnect", "seconds for a connection to come up; default 60"),
        Control::new("timeoutremote", "seconds for each read and write; default 1200"),
        Control::new("notlshosts", "hosts that never get TLS"),
        Control::new("moreipme", "further addresses of this host"),
        Control::new("notipme", "addresses that are not this host's, whatever the kernel says"),
    ],
    exits: &[
        ExitCodeDoc { code: 0, meaning: "the report is on descriptor 1" },
        ExitCodeDoc { code: 111, meaning: "the report could not be written" },
    ],
    description: "qmail-remote reads a message from descriptor 0, sends it to the mail exchangers of host, or \
to the relay that smtproutes names, and prints a report: for each recipient r (accepted), h (never) or s (not \
now) with a text and a NUL, then for the message K (accepted), D (never) or Z (not now) with a text and a NUL.\n\n\
TLS is used when the host offers it, without looking at its certificate; when the handshake fails the message is \
sent in clear. A file CERTDIR/tlshosts/HOST.pem with certificates of authorities makes TLS required for that host, \
with a certificate for its name. CERTDIR/tlshosts/exhaustivelist: no TLS for other hosts. CERTDIR/notlshosts/HOST: \
no TLS for that host.\n\n\
A host that did not answer twice is passed over for a while; QUEUEDIR/lock/tcpto remembers it. A route may say for \
how long: domain:relay:port:min_penalty:max_tolerance.",
    ..Spec::EMPTY
};

//! The table of the program.

use program::{Control, ExitCodeDoc, Operands, Place, Spec, Variable};

const fn variable(name: &'static str, help: &'static str) -> Variable {
    Variable { name, help }
}

const fn control(name: &'static str, help: &'static str) -> Control {
    Control { name, help }
}

pub(crate) static SPEC: Spec = Spec {
    name: "qmail-smtpd",
    summary: "receive mail by SMTP",
    section: 8,
    place: Place::Sbin,
    operands: Operands { synopsis: "[hostname]", min: 0, max: Some(1) },
    variables: &[
        variable("TCPREMOTEIP", "address of the client, set by tcpserver (TCP6REMOTEIP is preferred)"),
        variable("TCPREMOTEHOST", "reverse name of the client; default unknown"),
        variable("TCPREMOTEINFO", "what ident said about the client"),
        variable("TCPLOCALIP", "our address on this connection (TCP6LOCALIP is preferred)"),
        variable(
            "TCPLOCALPORT",
            "our port; 587 and 465 are submission services (TCP6LOCALPORT is preferred)",
        ),
        variable("TCPLOCALHOST", "our name in Received fields; default: the operand, else the host's name"),
        variable("TCPPARANOID", "set: the client's names do not match; it gets no service"),
        variable(
            "RELAYCLIENT",
            "set: this client may send to any host; the value is appended to its recipients",
        ),
        variable("SUBMISSION", "1: submission service, 0: not one, whatever the port"),
        variable("REQUIREAUTH", "set: MAIL needs a login"),
        variable("AUTH_ALL", "set: recipients in our own domains need relay permission too"),
        variable("FORCE_TLS", "set: mail and logins under TLS only"),
        variable("STARTTLS", "set: offer STARTTLS when the certificate file exists"),
        variable("SMTPS", "set: TLS from the first byte"),
        variable("TLS_PROVIDER", "set: TLS is done outside; what to say about it"),
        variable("CERTDIR", "directory of certificates; default /etc/indimail/certs"),
        variable("SERVERCERT", "file with private key and certificate chain (PEM); default servercert.pem"),
        variable("SECURE_AUTH", "set: passwords under TLS only, even with ALLOW_PLAINTEXT_AUTH"),
        variable("ALLOW_PLAINTEXT_AUTH", "set: passwords without TLS too"),
        variable("DISABLE_AUTH_PLAIN", "set: no AUTH PLAIN"),
        variable("DISABLE_AUTH_LOGIN", "set: no AUTH LOGIN"),
        variable("MAX_AUTH_ERRCOUNT", "failed logins that end the connection; default 3"),
        variable(
            "MASQUERADE",
            "senders a logged-in user may use: empty: any; an address: that one; default: her own",
        ),
        variable(
            "DEFAULT_DOMAIN",
            "domain of login names without one; default: control file defaultdomain, else me",
        ),
        variable("CHECKRECIPIENT", "set: recipients in our domains must exist"),
        variable("OVERQUOTA_PERM", "set: mailboxes over quota are refused for good (550 instead of 452)"),
        variable("MAX_RCPT_ERRCOUNT", "invalid recipients that end the connection; default: any number"),
        variable("MAXRECIPIENTS", "most recipients of a message, 0: no limit; overrides the control file"),
        variable(
            "TOO_MANY_RCPT_PERM",
            "set: recipients beyond the limit are refused with 557 instead of 452",
        ),
        variable("DATABYTES", "largest message in bytes, 0: no limit; overrides the control file"),
        variable("TARPITCOUNT", "recipient number from which on answers are delayed, 0: never"),
        variable("TARPITDELAY", "that delay in seconds; default 5"),
        variable("PENALTY", "pause in seconds after a failed login or an invalid recipient; default 5"),
        variable("ALLOW_BARELF", "set: a line feed without CR ends a line of a message"),
        variable("ALLOW_NOHELO", "set: MAIL may come without HELO or EHLO"),
        variable("SMTPUTF8", "set: offer SMTPUTF8"),
        variable("DISABLE_VRFY", "set: no VRFY"),
        variable("DISABLE_HELP", "set: no HELP"),
        variable("DISABLE_EXTRA_GREET", "set: the greeting says nothing but its control file"),
        variable("HIDE_HOST", "set: Received fields do not tell the client and this host"),
        variable("SHUTDOWN", "set: no service; a value that begins with three digits is the reply"),
        variable("OPENRELAY", "set: the client is an open relay; it gets no service"),
        variable("REQPTR", "set: a client without a reverse name gets no service; the value is the reason"),
        variable("QMAILQUEUE", "queue program, or a command line; default PREFIX/sbin/qmail-queue"),
        variable("NULLQUEUE", "set: messages are swallowed"),
        variable("ERROR_FD", "descriptor on which the queue program explains itself; default 2"),
        variable("INLOOKUP_SOCKET", "where inlookup listens; default /run/indimail/inlookup.sock"),
        variable("CONTROLDIR", "directory of control files; default /etc/indimail/control"),
        variable("SYSCONFDIR", "directory of configuration; default /etc/indimail"),
    ],
    controls: &[
        control("me", "this host's name; required unless smtpgreeting is there"),
        control("smtpgreeting", "lines of the greeting; default me"),
        control("localiphost", "the name that stands for our address in user@[address]; default me"),
        control("defaultdomain", "domain of login names without one; default me"),
        control("rcpthosts", "domains we take mail for; .domain: everything below it; without it: none"),
        control("morercpthosts.cdb", "more of them"),
        control("locals", "domains whose recipients are users of this host"),
        control("chkrcptdomains", "with CHECKRECIPIENT: check only these addresses and @domains (and .cdb)"),
        control("badmailfrom", "senders to refuse: addresses and @domains (and .cdb)"),
        control("badrcptto", "recipients to refuse: addresses and @domains (and .cdb)"),
        control("databytes", "largest message in bytes, 0: no limit (the default)"),
        control("maxrecipients", "most recipients of a message, 0: no limit (the default)"),
        control("maxhops", "a message with so many Received and Delivered-To fields loops; default 100"),
        control("maxcmdlen", "longest command line in bytes, at most 4096 (the default)"),
        control("tarpitcount", "recipient number from which on answers are delayed, 0: never (the default)"),
        control("tarpitdelay", "that delay in seconds; default 5"),
        control("timeoutsmtpd", "seconds for each read and write; default 1200"),
        control("timeoutread", "seconds for each question to inlookup; default 4"),
    ],
    exits: &[
        ExitCodeDoc { code: 0, meaning: "the client said QUIT" },
        ExitCodeDoc { code: 1, meaning: "dropped connection, timeout, bad configuration" },
        ExitCodeDoc { code: 100, meaning: "wrong usage" },
    ],
    description: "qmail-smtpd serves one client on descriptors 0 and 1, as tcpserver starts it, and hands \
messages to the queue program. Logs go to descriptor 2.\n\n\
A message ends with CR LF . CR LF and nothing else; one with a line feed without CR is refused and the \
connection is closed. Nothing is queued until the client has sent the end of the message.\n\n\
Logins are checked by inlookup and offered under TLS only, unless ALLOW_PLAINTEXT_AUTH is set. On ports 587 \
and 465, or with SUBMISSION=1, MAIL needs a login, the sender must be the user's own address, addresses need a \
domain, and missing Date and Message-ID fields are added.",
    ..Spec::EMPTY
};

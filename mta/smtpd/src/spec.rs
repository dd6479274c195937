//! The table of the program.

use program::{Control, ExitCodeDoc, Operands, OptionSpec, Place, Spec, Variable};

pub(crate) static SPEC: Spec = Spec {
    name: "qmail-smtpd",
    summary: "receive mail by SMTP",
    section: 8,
    place: Place::Sbin,
    options: &[
        OptionSpec::long_value(
            "listen",
            "address:port[,service]",
            "serve all clients that connect there; may be repeated. service: smtp, smtps (TLS from the first \
             byte), submission or submissions; without it the port decides",
        ),
        OptionSpec::long_flag(
            "inherit",
            "serve all clients of the sockets that the service manager passes; their names may be those services",
        ),
        OptionSpec::long_value("rules", "cdb", "follow the rules in this database, made by tcprules"),
        OptionSpec::long_flag(
            "rules-optional",
            "with --rules: allow connections when the database does not exist",
        ),
        OptionSpec::long_value("connections", "n", "at most n connections at a time (default 1000)"),
        OptionSpec::long_value(
            "per-client",
            "n",
            "at most n connections from one address or IPv6 network of 64 bits (default 0: no limit)",
        ),
        OptionSpec::long_value(
            "per-network",
            "n[/bits[/bits]]",
            "at most n connections from one network, IPv4 of 24 bits or IPv6 of 48 unless others are given",
        ),
        OptionSpec::long_value("backlog", "n", "about n connections may wait to be accepted (default 1024)"),
        OptionSpec::long_value(
            "proxy-from",
            "networks",
            "clients in these networks are proxies and send a PROXY header, version 1 or 2, before all else",
        ),
        OptionSpec::long_value(
            "greet-delay",
            "seconds",
            "clients that speak before the greeting, which comes after so long, are cut off (default 0)",
        ),
        OptionSpec::long_value("session", "seconds", "longest session (default 14400)"),
        OptionSpec::long_value(
            "drain",
            "seconds",
            "after SIGTERM, sessions with a message under way may go on for so long (default 30)",
        ),
        OptionSpec::long_value(
            "questions",
            "n",
            "threads that ask the lookup daemon, and as many for passwords (default 8)",
        ),
        OptionSpec::long_value("commits", "n", "threads that hand messages to the queue (default 100)"),
        OptionSpec::long_value(
            "user",
            "name",
            "started by root: become this user (default qmaild, group nofiles)",
        ),
        OptionSpec::long_value("groups", "list", "with these groups (default qmail,qcerts)"),
        OptionSpec::long_flag(
            "verbose",
            "log the begin and the end of each connection, as tcpserver -v does",
        ),
    ],
    operands: Operands { synopsis: "[hostname]", min: 0, max: Some(1) },
    variables: &[
        Variable::new("TCPREMOTEIP", "address of the client, set by tcpserver (TCP6REMOTEIP is preferred)"),
        Variable::new("TCPREMOTEHOST", "reverse name of the client; default unknown"),
        Variable::new("TCPREMOTEINFO", "what ident said about the client"),
        Variable::new("TCPLOCALIP", "our address on this connection (TCP6LOCALIP is preferred)"),
        Variable::new(
            "TCPLOCALPORT",
            "our port; 587 and 465 are submission services (TCP6LOCALPORT is preferred)",
        ),
        Variable::new(
            "TCPLOCALHOST",
            "our name in Received fields; default: the operand, else the host's name",
        ),
        Variable::new("TCPPARANOID", "set: the client's names do not match; it gets no service"),
        Variable::new(
            "RELAYCLIENT",
            "set: this client may send to any host; the value is appended to its recipients",
        ),
        Variable::new("SUBMISSION", "1: submission service, 0: not one, whatever the port"),
        Variable::new("REQUIREAUTH", "set: MAIL needs a login"),
        Variable::new("AUTH_ALL", "set: recipients in our own domains need relay permission too"),
        Variable::new("FORCE_TLS", "set: mail and logins under TLS only"),
        Variable::new("STARTTLS", "set: offer STARTTLS when the certificate file exists"),
        Variable::new("SMTPS", "set: TLS from the first byte"),
        Variable::new("TLS_PROVIDER", "set: TLS is done outside; what to say about it"),
        Variable::new("CERTDIR", "directory of certificates; default /etc/indimail/certs"),
        Variable::new(
            "SERVERCERT",
            "file with private key and certificate chain (PEM); default servercert.pem",
        ),
        Variable::new("SECURE_AUTH", "set: passwords under TLS only, even with ALLOW_PLAINTEXT_AUTH"),
        Variable::new("ALLOW_PLAINTEXT_AUTH", "set: passwords without TLS too"),
        Variable::new("DISABLE_AUTH_PLAIN", "set: no AUTH PLAIN"),
        Variable::new("DISABLE_AUTH_LOGIN", "set: no AUTH LOGIN"),
        Variable::new("MAX_AUTH_ERRCOUNT", "failed logins that end the connection; default 3"),
        Variable::new(
            "MASQUERADE",
            "senders a logged-in user may use: empty: any; an address: that one; default: her own",
        ),
        Variable::new(
            "DEFAULT_DOMAIN",
            "domain of login names without one; default: control file defaultdomain, else me",
        ),
        Variable::new("CHECKRECIPIENT", "set: recipients in our domains must exist"),
        Variable::new(
            "OVERQUOTA_PERM",
            "set: mailboxes over quota are refused for good (550 instead of 452)",
        ),
        Variable::new("MAX_RCPT_ERRCOUNT", "invalid recipients that end the connection; default: any number"),
        Variable::new(
            "MAXRECIPIENTS",
            "most recipients of a message, 0: no limit; overrides the control file",
        ),
        Variable::new(
            "TOO_MANY_RCPT_PERM",
            "set: recipients beyond the limit are refused with 557 instead of 452",
        ),
        Variable::new("DATABYTES", "largest message in bytes, 0: no limit; overrides the control file"),
        Variable::new("TARPITCOUNT", "recipient number from which on answers are delayed, 0: never"),
        Variable::new("TARPITDELAY", "that delay in seconds; default 5"),
        Variable::new("PENALTY", "pause in seconds after a failed login or an invalid recipient; default 5"),
        Variable::new("ALLOW_BARELF", "set: a line feed without CR ends a line of a message"),
        Variable::new("ALLOW_NOHELO", "set: MAIL may come without HELO or EHLO"),
        Variable::new("SMTPUTF8", "set: offer SMTPUTF8"),
        Variable::new("DISABLE_VRFY", "set: no VRFY"),
        Variable::new("DISABLE_HELP", "set: no HELP"),
        Variable::new("DISABLE_EXTRA_GREET", "set: the greeting says nothing but its control file"),
        Variable::new("HIDE_HOST", "set: Received fields do not tell the client and this host"),
        Variable::new("SHUTDOWN", "set: no service; a value that begins with three digits is the reply"),
        Variable::new("OPENRELAY", "set: the client is an open relay; it gets no service"),
        Variable::new(
            "REQPTR",
            "set: a client without a reverse name gets no service; the value is the reason",
        ),
        Variable::new("QMAILQUEUE", "queue program, or a command line; default PREFIX/sbin/qmail-queue"),
        Variable::new(
            "QUEUE_SOCKET",
            "where the queue service listens, or empty for none; default /run/indimail/queue.sock, none when QUEUEDIR, QUEUE_BASE, QUEUE_START or QUEUE_COUNT is set",
        ),
        Variable::new("NULLQUEUE", "set: messages are swallowed"),
        Variable::new("ERROR_FD", "descriptor on which the queue program explains itself; default 2"),
        Variable::new("INLOOKUP_SOCKET", "where inlookup listens; default /run/indimail/inlookup.sock"),
        Variable::new(
            "READY_FD",
            "resident server: number of a descriptor that gets a newline when clients are served",
        ),
        Variable::new("NOTIFY_SOCKET", "resident server: where systemd waits for readiness"),
        Variable::new("CONTROLDIR", "directory of control files; default /etc/indimail/control"),
        Variable::new("SYSCONFDIR", "directory of configuration; default /etc/indimail"),
    ],
    controls: &[
        Control::new("me", "this host's name; required unless smtpgreeting is there"),
        Control::new("smtpgreeting", "lines of the greeting; default me"),
        Control::new("localiphost", "the name that stands for our address in user@[address]; default me"),
        Control::new("defaultdomain", "domain of login names without one; default me"),
        Control::new(
            "rcpthosts",
            "domains we take mail for; .domain: everything below it; empty: none. Required (it or \
             morercpthosts.cdb) unless RELAYCLIENT is set or this is a submission service",
        ),
        Control::new("morercpthosts.cdb", "more of them"),
        Control::new("locals", "domains whose recipients are users of this host"),
        Control::new(
            "chkrcptdomains",
            "with CHECKRECIPIENT: check only these addresses, @domains and shell patterns (and .cdb)",
        ),
        Control::new("badmailfrom", "senders to refuse: addresses, @domains and shell patterns (and .cdb)"),
        Control::new(
            "badmailpatterns",
            "shell patterns of badmailfrom, instead of those in it; the last one that matches decides, ! means no",
        ),
        Control::new("badrcptpatterns", "the same for badrcptto"),
        Control::new("badrcptto", "recipients to refuse: addresses, @domains and shell patterns (and .cdb)"),
        Control::new("databytes", "largest message in bytes, 0: no limit (the default)"),
        Control::new("maxrecipients", "most recipients of a message, 0: no limit (the default)"),
        Control::new("maxhops", "a message with so many Received and Delivered-To fields loops; default 100"),
        Control::new("maxcmdlen", "longest command line in bytes, at most 4096 (the default)"),
        Control::new(
            "tarpitcount",
            "recipient number from which on answers are delayed, 0: never (the default)",
        ),
        Control::new("tarpitdelay", "that delay in seconds; default 5"),
        Control::new("timeoutsmtpd", "seconds for each read and write; default 1200"),
        Control::new("timeoutread", "seconds for each question to inlookup; default 4"),
    ],
    exits: &[
        ExitCodeDoc {
            code: 0,
            meaning: "the client said QUIT; a resident server was stopped by SIGTERM or SIGINT",
        },
        ExitCodeDoc { code: 1, meaning: "dropped connection, timeout, bad configuration" },
        ExitCodeDoc { code: 100, meaning: "wrong usage" },
        ExitCodeDoc { code: 111, meaning: "a resident server cannot listen, or cannot give up root" },
    ],
    description: "qmail-smtpd serves one client on descriptors 0 and 1, as tcpserver starts it, and hands \
messages to the queue program. Logs go to descriptor 2.\n\n\
A message ends with CR LF . CR LF and nothing else; one with a line feed without CR is refused and the \
connection is closed. Nothing is queued until the client has sent the end of the message.\n\n\
Logins are checked by inlookup and offered under TLS only, unless ALLOW_PLAINTEXT_AUTH is set. On ports 587 \
and 465, or with SUBMISSION=1, MAIL needs a login, the sender must be the user's own address, addresses need a \
domain, and missing Date and Message-ID fields are added.\n\n\
With --listen or --inherit it stays, and one process serves all clients; options that begin with two dashes \
belong to it. What tcpserver and its rules tell one session by variables holds here for one connection too. \
Control files and the certificate are read again when they have changed, and with SIGHUP in any case; \
connections that are open keep what they began with. Settings that cannot be used leave the old ones in force; \
without old ones clients get 451. The names of clients are not looked up. SIGTERM: nobody is let in any more, \
sessions between two messages get 421, the others finish theirs first. A log line says `pid` and a number that \
stands for the connection.",
    ..Spec::EMPTY
};

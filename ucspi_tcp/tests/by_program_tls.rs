//! tcpserver with TLS, asked by openssl.

mod server;

use server::*;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use nix::sys::signal::Signal;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType, IsCa,
    Issuer, KeyIdMethod, KeyPair, RevokedCertParams, SerialNumber, date_time_ymd,
};

/// An authority.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = named(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::CrlSign];
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// Key and certificate for this name.
    fn sign(&self, name: &str, number: u64) -> String {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name = named(name);
        params.serial_number = Some(SerialNumber::from(number));
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        format!("{}{}", key.serialize_pem(), certificate.pem())
    }

    /// A list that takes back the certificate with this number.
    fn revoke(&self, number: u64) -> String {
        let params = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(2120, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: vec![RevokedCertParams {
                serial_number: SerialNumber::from(number),
                revocation_time: date_time_ymd(2020, 1, 1),
                reason_code: None,
                invalidity_date: None,
            }],
            key_identifier_method: KeyIdMethod::Sha256,
        };
        params.signed_by(&self.issuer).unwrap().pem().unwrap()
    }
}

fn named(name: &str) -> DistinguishedName {
    let mut all = DistinguishedName::new();
    all.push(DnType::OrganizationName, "Example, Inc.");
    all.push(DnType::CommonName, name);
    all
}

/// A kit with `servercert.pem` for mx.example and `ca.pem` of who signed it.
fn place() -> (Kit, Authority) {
    let kit = Kit::new();
    let authority = Authority::new("Authority");
    fs::write(kit.path("ca.pem"), &authority.pem).unwrap();
    fs::write(kit.path("servercert.pem"), authority.sign("mx.example", 1)).unwrap();
    (kit, authority)
}

/// A server with TLS; certificates are looked for in the kit's directory.
fn serve(kit: &Kit, options: &[&str], program: &[&str]) -> Server {
    let dir = kit.path("");
    let mut all = vec!["-i", dir.to_str().unwrap(), "-H", "-R", "-l", "here"];
    if !options.contains(&"-n") {
        all.push("-s");
    }
    all.extend(options);
    all.extend(["127.0.0.1", "0"]);
    all.extend(program);
    kit.server(&all)
}

/// openssl, which checks that the server is `name`.
struct Talk {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Talk {
    fn start(kit: &Kit, server: &Server, name: &str, options: &[&str]) -> Self {
        let mut child = Command::new("openssl")
            .args(["s_client", "-quiet", "-verify_quiet", "-CAfile", "ca.pem", "-verify_return_error"])
            .args(["-verify_hostname", name, "-servername", name, "-connect"])
            .arg(format!("127.0.0.1:{}", server.port))
            .args(options)
            .current_dir(kit.path(""))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the package openssl must be installed");
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Self { child, stdin, stdout: BufReader::new(stdout) }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line
    }

    fn say(&mut self, text: &str) -> String {
        self.stdin.write_all(text.as_bytes()).unwrap();
        self.line()
    }

    fn rest(mut self) -> String {
        let mut all = String::new();
        self.stdout.read_to_string(&mut all).unwrap();
        drop(self.stdin);
        self.child.wait().unwrap();
        all
    }
}

/// All that a server says to a client of mx.example.
fn answer(kit: &Kit, server: &Server, options: &[&str]) -> String {
    Talk::start(kit, server, "mx.example", options).rest()
}

const ECHO: [&str; 3] = ["/bin/sh", "-c", "echo hello; exec cat"];

#[test]
fn the_program_sees_plain_text_and_the_variables() {
    let (kit, _) = place();
    let script = "env; read line; echo got=$line; exit 7";
    let server = serve(&kit, &["-z", "-B", "banner\n"], &["/bin/sh", "-c", script]);
    let mut talk =
        Talk::start(&kit, &server, "mx.example", &["-tls1_3", "-ciphersuites", "TLS_AES_128_GCM_SHA256"]);
    talk.stdin.write_all(b"secret words\n").unwrap();
    assert_eq!(talk.line(), "banner\n");
    let got = variables(&talk.rest());
    for (name, value) in [
        ("PROTO", "TCP"),
        ("TCPREMOTEIP", "127.0.0.1"),
        ("TCPLOCALHOST", "here"),
        ("SSL_PROTOCOL", "TLSv1.3"),
        ("SSL_CIPHER", "TLS_AES_128_GCM_SHA256"),
        ("SSL_CIPHER_USEKEYSIZE", "128"),
        ("SSL_TLS_SNI", "mx.example"),
        ("SSL_CLIENT_VERIFY", "NONE"),
        (
            "TLS_PROVIDER",
            "tcpserver, TLS Server=TLSv1.3, Client=TLSv1.3, Ciphers=TLS_AES_128_GCM_SHA256, bits=128",
        ),
        ("got", "secret words"),
    ] {
        assert_eq!(got.get(name).map(String::as_str), Some(value), "{name} {got:?}");
    }
    assert!(!got.contains_key("SSL_CLIENT_S_DN"));
    kit.wait_log(" status 7\n");
    kit.wait_log("status: 0/40 end");
    let log = kit.text("log");
    assert!(log.contains(&format!(" here[127.0.0.1]{} [127.0.0.1]:", server.port)), "{log}");
    // Without -z, and in the older version.
    let server = serve(&kit, &[], &["/usr/bin/env"]);
    let got = variables(&answer(&kit, &server, &["-tls1_2"]));
    assert_eq!(got["SSL_PROTOCOL"], "TLSv1.2");
    assert!(got["SSL_CIPHER"].starts_with("ECDHE-ECDSA-") && !got.contains_key("TLS_PROVIDER"));
}

#[test]
fn the_end_of_the_program_is_logged_as_it_was() {
    let (kit, _) = place();
    let server = serve(&kit, &[], &["/bin/sh", "-c", "echo x; kill -9 $$"]);
    assert_eq!(answer(&kit, &server, &[]), "x\n");
    kit.wait_log(" killed by signal 9\n");
    let server = serve(&kit, &[], &["/nonexistent"]);
    assert_eq!(answer(&kit, &server, &[]), "");
    kit.wait_log("unable to run /nonexistent: ");
    kit.wait_log(" status 111\n");
}

#[test]
fn certificates_by_name() {
    let (kit, authority) = place();
    fs::create_dir(kit.path("sni")).unwrap();
    fs::write(kit.path("sni/other.example.pem"), authority.sign("other.example", 2)).unwrap();
    fs::write(kit.path("sni/_.wild.example.pem"), authority.sign("*.wild.example", 3)).unwrap();
    let server = serve(&kit, &[], &["/bin/sh", "-c", "echo $SSL_TLS_SNI"]);
    for name in ["mx.example", "other.example", "a.wild.example"] {
        assert_eq!(Talk::start(&kit, &server, name, &[]).rest(), format!("{name}\n"));
    }
    // Nobody has a certificate for it: openssl does not like what it gets.
    assert_eq!(Talk::start(&kit, &server, "nobody.example", &[]).rest(), "");
}

#[test]
fn certificates_of_clients() {
    let (kit, authority) = place();
    let other = Authority::new("Other");
    for (name, pem) in [
        ("jane.pem", authority.sign("jane.example", 10)),
        ("gone.pem", authority.sign("gone.example", 11)),
        ("stranger.pem", other.sign("stranger.example", 10)),
        ("crl.pem", authority.revoke(11)),
    ] {
        fs::write(kit.path(name), pem).unwrap();
    }
    let show = ["/bin/sh", "-c", "echo \"$SSL_CLIENT_VERIFY/$SSL_CLIENT_S_DN/$SSL_CLIENT_I_DN\""];
    let with = |server: &Server, name: &str| answer(&kit, server, &["-cert", name, "-key", name]);
    let jane = "SUCCESS/CN=jane.example,O=Example\\, Inc./CN=Authority,O=Example\\, Inc.\n";
    let server = serve(&kit, &["-a", "ca.pem", "-L", "crl.pem"], &show);
    assert_eq!(with(&server, "jane.pem"), jane);
    assert_eq!(answer(&kit, &server, &[]), "", "none");
    kit.wait_log("TLS handshake: peer sent no certificates");
    assert_eq!(with(&server, "stranger.pem"), "", "of another authority");
    kit.wait_log("TLS handshake: invalid peer certificate: UnknownIssuer");
    assert_eq!(with(&server, "gone.pem"), "", "revoked");
    kit.wait_log("TLS handshake: invalid peer certificate: Revoked");
    kit.wait_log(" status 111\n");
    let server = serve(&kit, &["-a", "ca.pem", "--client-certificate", "optional"], &show);
    assert_eq!(answer(&kit, &server, &[]), "NONE//\n");
    assert_eq!(with(&server, "jane.pem"), jane);
    assert_eq!(with(&server, "stranger.pem"), "", "a bad one is worse than none");
}

#[test]
fn new_keys_at_hup_leave_open_connections_alone() {
    let (kit, authority) = place();
    let server = serve(&kit, &[], &ECHO);
    let mut old = Talk::start(&kit, &server, "mx.example", &[]);
    assert_eq!(old.line(), "hello\n");
    fs::write(kit.path("servercert.pem"), authority.sign("new.example", 2)).unwrap();
    server.signal(Signal::SIGHUP);
    kit.wait_log("sighup: 1/40");
    let mut new = Talk::start(&kit, &server, "new.example", &[]);
    assert_eq!(new.line(), "hello\n");
    assert_eq!(old.say("still\n"), "still\n");
    // What cannot be used does not take the place of what can.
    fs::write(kit.path("servercert.pem"), "broken").unwrap();
    server.signal(Signal::SIGHUP);
    kit.wait_log("servercert.pem: no certificate in it");
    kit.wait_log("sighup: 2/40");
    let mut third = Talk::start(&kit, &server, "new.example", &[]);
    assert_eq!(third.line(), "hello\n");
    for talk in [&mut old, &mut new] {
        assert_eq!(talk.say("on\n"), "on\n");
    }
    assert!(kit.text("log").contains("warning: keeping the certificates in force: "));
}

#[test]
fn versions_and_ciphers() {
    let (kit, _) = place();
    fs::write(kit.path("ciphers"), "TLS_CHACHA20_POLY1305_SHA256:ECDHE-ECDSA-AES256-GCM-SHA384\nnot read\n")
        .unwrap();
    let show = ["/bin/sh", "-c", "echo $SSL_PROTOCOL $SSL_CIPHER"];
    let server = serve(&kit, &["-M", "TLSv1_3", "-N", "-f", "ciphers"], &show);
    assert_eq!(answer(&kit, &server, &[]), "TLSv1.3 TLS_CHACHA20_POLY1305_SHA256\n");
    assert_eq!(answer(&kit, &server, &["-tls1_2"]), "");
    kit.wait_log("TLS handshake: ");
    let server = serve(&kit, &["-M", "TLSv1_2:TLSv1_3", "-f", "ciphers"], &show);
    assert_eq!(answer(&kit, &server, &["-tls1_2"]), "TLSv1.2 ECDHE-ECDSA-AES256-GCM-SHA384\n");
    let mut all = vec!["-n", "./servercert.pem"];
    all.extend(args(&["127.0.0.1", "0"]));
    all.extend(show);
    let server = kit.server_with(&all, |c| {
        c.env("TLS_CIPHER_LIST", "HIGH:!aNULL").env("TLS_CIPHER_SUITE", "TLS_AES_128_GCM_SHA256");
    });
    assert_eq!(
        answer(&kit, &server, &["-ciphersuites", "TLS_AES_128_GCM_SHA256"]),
        "TLSv1.3 TLS_AES_128_GCM_SHA256\n"
    );
}

#[test]
fn wrong_settings_are_named() {
    let (kit, _) = place();
    fs::write(kit.path("weak"), "RC4-MD5\n").unwrap();
    let dir = kit.path("");
    let run = |options: &[&str]| {
        let mut command = kit.command("tcpserver");
        command.args(["-i", dir.to_str().unwrap()]).args(options).args(["127.0.0.1", "0", "true"]);
        let out = command.stdin(Stdio::null()).output().unwrap();
        (out.status.code(), String::from_utf8(out.stderr).unwrap())
    };
    for (options, code, says) in [
        (&["-n", "nosuch.pem"][..], 111, "nosuch.pem: No such file"),
        (&["-n", "ca.pem"], 111, "ca.pem: private key"),
        (&["-s", "-M", "SSLv3"], 100, "option -M: "),
        (&["-s", "-f", "weak"], 111, "weak: \"RC4-MD5\" names no cipher"),
        (&["-s", "-L", "crl.pem"], 100, "need -a"),
        (&["-s", "-a", "ca.pem", "--client-certificate", "perhaps"], 100, "expected required or optional"),
        (&["-a", "ca.pem"], 100, "TLS needs -s"),
        (&["-s", "-S", "0"], 100, "option -S: "),
    ] {
        let (got, text) = run(options);
        assert!(got == Some(code) && text.contains(says), "{options:?}: {got:?} {text}");
        assert!(text.starts_with("tcpserver"), "{text}");
    }
}

#[test]
fn silence_and_what_is_no_tls_end_a_connection() {
    let (kit, _) = place();
    let server = serve(&kit, &[], &ECHO);
    let mut plain = server.connect();
    plain.write_all(b"EHLO c.example\r\nEHLO c.example\r\n").unwrap();
    read_all(plain);
    kit.wait_log("dropping connection from 127.0.0.1: TLS handshake: received corrupt message");
    let server = serve(&kit, &["-S", "1"], &ECHO);
    read_all(server.connect());
    kit.wait_log("dropping connection from 127.0.0.1: TLS handshake: no answer in time");
    let server = serve(&kit, &["-T", "1"], &ECHO);
    Talk::start(&kit, &server, "mx.example", &[]).rest();
    kit.wait_log("ending connection from 127.0.0.1: nothing has moved for 1 seconds");
    kit.wait_log("status: 0/40 end");
}

#[test]
fn rules_limits_and_questions_come_before_the_handshake() {
    let (kit, _) = place();
    let rules = kit.rules("127.0.0.9:deny\n=localhost:allow,BY=\"name\"\n:allow\n");
    let dir = kit.path("");
    let options =
        ["-i", dir.to_str().unwrap(), "-s", "-R", "-C", "1", "-x", rules.to_str().unwrap(), "127.0.0.1", "0"];
    let mut all = options.to_vec();
    all.extend(["/bin/sh", "-c", "echo $TCPREMOTEHOST $BY; exec cat"]);
    let server = kit.server(&all);
    let mut held = Talk::start(&kit, &server, "mx.example", &[]);
    assert_eq!(held.line(), "localhost name\n");
    assert_eq!(read_all(server.connect()), "");
    kit.wait_log("end 127.0.0.1 perIPlimit 1");
    assert_eq!(read_all(server.connect_from("127.0.0.9")), "");
    kit.wait_log("deny ");
    assert_eq!(held.say("on\n"), "on\n");
}

#[test]
fn sessions_are_resumed() {
    let (kit, _) = place();
    let server = serve(&kit, &[], &["/bin/echo", "x"]);
    let summary = |options: &[&str]| {
        let mut child = Command::new("openssl")
            .args([
                "s_client",
                "-ign_eof",
                "-CAfile",
                "ca.pem",
                "-connect",
                &format!("127.0.0.1:{}", server.port),
            ])
            .args(options)
            .current_dir(kit.path(""))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut text = String::new();
        child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        child.wait().unwrap();
        text
    };
    assert!(summary(&["-sess_out", "session"]).contains("New, TLSv1.3"));
    assert!(summary(&["-sess_in", "session"]).contains("Reused, TLSv1.3"), "by another copy of the server");
}

#[test]
fn the_key_may_be_roots_and_term_reaches_the_program() {
    assert!(nix::unistd::geteuid().is_root(), "this test needs root");
    let (kit, _) = place();
    fs::set_permissions(kit.path("servercert.pem"), std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .unwrap();
    let script = "trap 'echo bye; exit 3' TERM; id -u; while :; do sleep 0.01; done";
    let mut server = serve(&kit, &["-u", "nobody", "--drain", "0"], &["/bin/sh", "-c", script]);
    let mut talk = Talk::start(&kit, &server, "mx.example", &[]);
    assert_eq!(talk.line(), "65534\n");
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait(), Some(0));
    assert_eq!(talk.rest(), "bye\n");
}

#[test]
fn a_socket_that_was_passed_is_served_with_tls() {
    let (kit, _) = place();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let script = "LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" \"$@\" 3<&0 0</dev/null";
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]).arg(kit.path("tcpserver")).args(["-s", "-i", "."]);
    command.args(args(&["127.0.0.1", "9", "/bin/echo", "passed"])).current_dir(kit.path(""));
    let child = command.stdin(Stdio::from(std::os::fd::OwnedFd::from(listener))).spawn().unwrap();
    let server = Server { child, port };
    assert_eq!(answer(&kit, &server, &[]), "passed\n");
}

//! Variables and control files of the commands. Each command's table lists those it has a use for, and only
//! those are looked at.

use std::path::PathBuf;

use control::Directory;
use program::{Control, Exit, Invocation, Loader, Source, Variable};

/// The variables of a command: where everything is, and those named.
macro_rules! variables {
    ($($more:ident),*) => {
        &[
            $crate::settings::CONTROLDIR,
            $crate::settings::SYSCONFDIR,
            $crate::settings::ASSIGNDIR,
            $crate::settings::DOMAINDIR,
            $($crate::settings::$more),*
        ]
    };
}
/// The control files of a command: those of the store, and those named.
macro_rules! controls {
    ($($more:ident),*) => {
        &[
            $crate::settings::ACCOUNTSTORE,
            $crate::settings::HOST_MYSQL,
            $crate::settings::MYSQL_CA,
            $($crate::settings::$more),*
        ]
    };
}
pub(crate) use {controls, variables};

pub(crate) const CONTROLDIR: Variable =
    Variable::new("CONTROLDIR", "directory of the control files (default /etc/indimail/control)");
pub(crate) const SYSCONFDIR: Variable =
    Variable::new("SYSCONFDIR", "base of a relative CONTROLDIR (default /etc/indimail)");
pub(crate) const ASSIGNDIR: Variable =
    Variable::new("ASSIGNDIR", "directory of assign and cdb (default /etc/indimail/users)");
pub(crate) const DOMAINDIR: Variable =
    Variable::new("DOMAINDIR", "base of the domain directories (default /var/indimail)");
pub(crate) const BASE_PATH: Variable =
    Variable::new("BASE_PATH", "base of the home directories (default /home/mail)");
pub(crate) const PASSWORD_HASH: Variable =
    Variable::new("PASSWORD_HASH", "password scheme, name or number (default SHA-512)");
pub(crate) const POST_HANDLE: Variable = Variable::new(
    "POST_HANDLE",
    "program to run after success instead of LIBEXECDIR/COMMAND; runs as the domain's user",
);
pub(crate) const INLOOKUP_SOCKET: Variable = Variable::new(
    "INLOOKUP_SOCKET",
    "socket of inlookup, which is told of changes (default /run/indimail/inlookup.sock)",
);
pub(crate) const NSSD_SOCKET: Variable = Variable::new(
    "NSSD_SOCKET",
    "socket of nssd, which is told of changes (default /run/indimail/nssd.sock)",
);
pub(crate) const QMAIL_SEND_SERVICE: Variable = Variable::new(
    "QMAIL_SEND_SERVICE",
    "service directory of qmail-send, which is told to read its control files again when a domain comes or goes (default: it is not told)",
);

pub(crate) const ACCOUNTSTORE: Control = Control::new(
    "accountstore",
    "where accounts are: sqlite:/path, mysql: or mysql:DATABASE (default: MySQL when host.mysql exists, else DOMAINDIR/accounts.sqlite)",
);
pub(crate) const HOST_MYSQL: Control = Control::new(
    "host.mysql",
    "the database server: host:user:password:socket_or_port[:ssl|nossl], mode 0640",
);
pub(crate) const MYSQL_CA: Control =
    Control::new("mysql.ca", "path of a PEM file with the authority of the server's certificate");
pub(crate) const HASH_METHOD: Control =
    Control::new("hash_method", "password scheme, unless the domain directory has such a file");
pub(crate) const LOCALS: Control = Control::new("locals", "a new domain is taken out of it");
pub(crate) const VIRTUALDOMAINS: Control =
    Control::new("virtualdomains", "domains with accounts: a domain's line comes and goes with it");
pub(crate) const RCPTHOSTS: Control = Control::new(
    "rcpthosts",
    "domains that mail is accepted for, the first 50: a domain's line comes and goes with it",
);
pub(crate) const MORERCPTHOSTS: Control = Control::new(
    "morercpthosts",
    "the other domains that mail is accepted for, compiled to morercpthosts.cdb",
);
pub(crate) const CHKRCPTDOMAINS: Control =
    Control::new("chkrcptdomains", "domains whose recipients are checked at SMTP time");

/// Typed settings of a command. What its table does not list has its default.
pub(crate) struct Settings {
    /// The control directory.
    pub(crate) control: Directory,
    /// Where accounts and domains are.
    pub(crate) accounts: accounts::Settings,
    /// Base of the domain directories.
    pub(crate) domain_dir: PathBuf,
    /// Base of the homes.
    pub(crate) base_path: PathBuf,
    /// Password scheme of the environment.
    pub(crate) password_hash: Option<Vec<u8>>,
    /// The control file with the password scheme.
    pub(crate) hash_method: Option<Vec<u8>>,
    /// Command line of the post-handle program.
    pub(crate) post_handle: Option<Vec<u8>>,
    /// Socket of inlookup.
    pub(crate) inlookup: PathBuf,
    /// Socket of nssd.
    pub(crate) nssd: PathBuf,
    /// Service directory of qmail-send.
    pub(crate) send_service: Option<PathBuf>,
}

impl Settings {
    /// Loads them; with `--show-settings` prints them and ends.
    pub(crate) fn load(invocation: &Invocation) -> Result<Self, Exit> {
        let mut loader = Loader::new(&invocation.environment);
        let spec = invocation.spec;
        let of = |variable: Variable| {
            let listed = spec.variables.iter().any(|v| v.name == variable.name);
            listed.then_some(Source { variable: Some(variable.name), ..Source::default() })
        };
        fn path(loader: &mut Loader<'_>, name: &str, from: Option<Source<'_>>, default: &str) -> PathBuf {
            from.map_or_else(|| PathBuf::from(default), |from| loader.path(name, from, default))
        }
        let control = loader.control().clone();
        let source = loader.source(&["CONTROLDIR", "SYSCONFDIR"], &[]);
        loader.show("control directory", control.path().display(), source);
        let assign_dir = path(&mut loader, "assign directory", of(ASSIGNDIR), "/etc/indimail/users");
        let domain_dir = path(&mut loader, "domain directory", of(DOMAINDIR), "/var/indimail");
        let base_path = path(&mut loader, "base of homes", of(BASE_PATH), "/home/mail");
        let inlookup =
            path(&mut loader, "socket of inlookup", of(INLOOKUP_SOCKET), lookup::mail::DEFAULT_SOCKET);
        let nssd = path(&mut loader, "socket of nssd", of(NSSD_SOCKET), lookup::identity::DEFAULT_SOCKET);
        let password_hash = of(PASSWORD_HASH).and_then(|from| loader.bytes("password scheme", from));
        let hash_method = if spec.controls.iter().any(|c| c.name == HASH_METHOD.name) {
            let read = control.native(HASH_METHOD.name);
            let text = loader.take(read);
            if let Some(text) = &text {
                let shown = control::entries(text).next().unwrap_or_default().escape_ascii().to_string();
                loader.show("hash_method", shown, control.file(HASH_METHOD.name).display());
            }
            text
        } else {
            None
        };
        let post_handle = of(POST_HANDLE).and_then(|from| loader.bytes("post-handle program", from));
        let send_service =
            of(QMAIL_SEND_SERVICE).and_then(|from| loader.bytes("service of qmail-send", from));
        let accounts = match accounts::Settings::load(&control, &domain_dir, &assign_dir) {
            Ok(accounts) => {
                let store = accounts.store.describe();
                let source = loader.source(&[], &["accountstore", "host.mysql"]);
                loader.show("account store", store, source);
                Some(accounts)
            }
            Err(e) => {
                loader.problem(e);
                None
            }
        };
        let settings = accounts.map(|accounts| Self {
            control,
            accounts,
            domain_dir,
            base_path,
            password_hash,
            hash_method,
            post_handle,
            inlookup,
            nssd,
            send_service: send_service
                .map(|s| PathBuf::from(<std::ffi::OsString as std::os::unix::ffi::OsStringExt>::from_vec(s))),
        });
        // Without the store a problem was noted, and the call does not return settings.
        invocation.finish(loader, settings, Exit::TEMPORARY)?.ok_or(Exit::TEMPORARY)
    }
}

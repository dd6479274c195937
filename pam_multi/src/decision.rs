//! What each entry point answers: decisions only, over a [`Host`] and a [`Backend`].

use pam::constants::PamResultCode as Code;

use crate::arguments::{Arguments, FirstPass};

/// A password; its memory is wiped when it is dropped.
pub type Secret = zeroize::Zeroizing<Vec<u8>>;

/// The longest password that is passed on, in bytes (libpam's own PAM_MAX_RESP_SIZE).
pub const MAX_PASSWORD: usize = 512;
/// The longest login name that is asked about, in bytes (a mailbox name of RFC 5321).
pub const MAX_LOGIN: usize = 320;
/// What libpam is asked to wait after a failure, in microseconds.
pub const FAIL_DELAY: u32 = 2_000_000;

/// How urgent a line in the system log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// The module cannot work: misconfiguration, daemon away.
    Error,
    /// Somebody was refused.
    Notice,
    /// An outcome, with `debug`.
    Debug,
}

/// The application and libpam, as the module sees them.
pub trait Host {
    /// The login name (PAM_USER), asked for when it is not set. Never changed.
    ///
    /// # Errors
    /// What libpam answered.
    fn user(&mut self) -> Result<Vec<u8>, Code>;
    /// The password an earlier module asked for (PAM_AUTHTOK).
    fn earlier_password(&mut self) -> Option<Secret>;
    /// Asks for a password, without echo.
    ///
    /// # Errors
    /// What the conversation answered; `PAM_CONV_ERR` when it gave no reply.
    fn prompt(&mut self) -> Result<Secret, Code>;
    /// Keeps a password for the modules that follow (PAM_AUTHTOK).
    ///
    /// # Errors
    /// What libpam answered.
    fn keep_password(&mut self, password: &Secret) -> Result<(), Code>;
    /// The PAM service's name.
    fn service(&mut self) -> Vec<u8>;
    /// Where the user comes from (PAM_RHOST); empty when unknown.
    fn remote_host(&mut self) -> Vec<u8>;
    /// Asks libpam to wait this many microseconds should authentication fail.
    fn delay_failure(&mut self, microseconds: u32);
    /// Writes to the system log.
    fn log(&mut self, level: Level, text: &str);
}

/// What the daemon says about a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Right password, or an account in good standing.
    Granted,
    /// No such account.
    Absent,
    /// Wrong password.
    Wrong,
    /// Right password, but inactive or not for this service.
    Disabled,
    /// Right password, but the account's time is over.
    Expired,
    /// Right password, but it must be changed first.
    PasswordExpired,
    /// Too many failures lately; the password was not looked at.
    Later,
}

/// The daemon gave no answer; the text says why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unavailable(pub String);

/// Whoever knows accounts: the daemon, or a fake.
pub trait Backend {
    /// Checks a password.
    ///
    /// # Errors
    /// No answer in time.
    fn authenticate(
        &mut self,
        login: &[u8],
        password: &Secret,
        service: &[u8],
        remote_host: &[u8],
    ) -> Result<Answer, Unavailable>;
    /// Checks that an account may use a service.
    ///
    /// # Errors
    /// No answer in time.
    fn account(&mut self, login: &[u8], service: &[u8]) -> Result<Answer, Unavailable>;
}

/// Flags of libpam that matter here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags {
    /// PAM_DISALLOW_NULL_AUTHTOK
    pub disallow_empty: bool,
}

/// Answers `pam_sm_authenticate`.
pub fn authenticate(
    host: &mut impl Host,
    backend: &mut impl Backend,
    arguments: &Arguments,
    flags: Flags,
) -> Code {
    let login = match login(host, arguments) {
        Ok(login) => login,
        Err(code) => return code,
    };
    if !arguments.nodelay {
        // libpam waits only when authentication fails, and before it tells the application.
        host.delay_failure(FAIL_DELAY);
    }
    let mut asker = Asker {
        host,
        backend,
        arguments,
        login: &login,
        empty_ok: arguments.nullok && !flags.disallow_empty,
    };
    if let Some(earlier) = asker.host.earlier_password() {
        let code = asker.check(&earlier);
        if code != Code::PAM_AUTH_ERR || arguments.first_pass != FirstPass::Try {
            return code;
        }
    } else if arguments.first_pass == FirstPass::Only {
        return Code::PAM_AUTH_ERR;
    }
    let password = match asker.host.prompt() {
        Ok(password) => password,
        // A question that was cancelled is not a failed password: nothing reaches the daemon.
        Err(Code::PAM_CONV_AGAIN) => return Code::PAM_INCOMPLETE,
        Err(code) => return code,
    };
    if password.len() <= MAX_PASSWORD
        && let Err(code) = asker.host.keep_password(&password)
    {
        return code;
    }
    asker.check(&password)
}

/// Answers `pam_sm_acct_mgmt`. It asks anew: another module may have authenticated the user, in
/// another process even.
pub fn account(host: &mut impl Host, backend: &mut impl Backend, arguments: &Arguments) -> Code {
    let login = match login(host, arguments) {
        Ok(login) => login,
        Err(code) => return code,
    };
    let service = service(host, arguments);
    match backend.account(&login, &service) {
        Ok(Answer::PasswordExpired) => Code::PAM_NEW_AUTHTOK_REQD,
        answer => code(host, arguments, &login, &service, answer),
    }
}

/// Answers `pam_sm_chauthtok`, in both of its rounds: mail passwords are changed with vpasswd.
pub fn change_password(host: &mut impl Host, arguments: &Arguments) -> Code {
    match login(host, arguments) {
        Ok(login) => {
            let text = format!("{}: change this password with vpasswd", login.escape_ascii());
            host.log(Level::Notice, &text);
            Code::PAM_AUTHTOK_ERR
        }
        Err(code) => code,
    }
}

struct Asker<'a, H, B> {
    host: &'a mut H,
    backend: &'a mut B,
    arguments: &'a Arguments,
    login: &'a [u8],
    empty_ok: bool,
}

impl<H: Host, B: Backend> Asker<'_, H, B> {
    fn check(&mut self, password: &Secret) -> Code {
        if password.len() > MAX_PASSWORD {
            let text =
                format!("password of {} is longer than {MAX_PASSWORD} bytes", self.login.escape_ascii());
            self.host.log(Level::Notice, &text);
            return Code::PAM_AUTH_ERR;
        }
        if password.is_empty() && !self.empty_ok {
            return Code::PAM_AUTH_ERR;
        }
        let service = service(self.host, self.arguments);
        let remote_host = self.host.remote_host();
        let answer = self.backend.authenticate(self.login, password, &service, &remote_host);
        code(self.host, self.arguments, self.login, &service, answer)
    }
}

/// The name to ask about. A name without a domain is somebody else's user unless `domain=` is given.
fn login(host: &mut impl Host, arguments: &Arguments) -> Result<Vec<u8>, Code> {
    let mut login = host.user()?;
    if !login.contains(&b'@') {
        let Some(domain) = &arguments.domain else {
            return Err(Code::PAM_USER_UNKNOWN);
        };
        if !login.is_empty() {
            login.push(b'@');
            login.extend_from_slice(domain);
        }
    }
    if login.is_empty() || login.len() > MAX_LOGIN {
        return Err(Code::PAM_USER_UNKNOWN);
    }
    Ok(login)
}

fn service(host: &mut impl Host, arguments: &Arguments) -> Vec<u8> {
    arguments.service.clone().unwrap_or_else(|| host.service())
}

fn code(
    host: &mut impl Host,
    arguments: &Arguments,
    login: &[u8],
    service: &[u8],
    answer: Result<Answer, Unavailable>,
) -> Code {
    let (login, service) = (login.escape_ascii(), service.escape_ascii());
    let answer = match answer {
        Ok(answer) => answer,
        Err(Unavailable(why)) => {
            host.log(Level::Error, &format!("cannot check {login} for {service}: {why}"));
            return Code::PAM_AUTHINFO_UNAVAIL;
        }
    };
    let (level, code) = match answer {
        Answer::Granted => (Level::Debug, Code::PAM_SUCCESS),
        Answer::Absent => (Level::Debug, Code::PAM_USER_UNKNOWN),
        Answer::Wrong => (Level::Notice, Code::PAM_AUTH_ERR),
        Answer::Disabled => (Level::Notice, Code::PAM_PERM_DENIED),
        Answer::Expired => (Level::Notice, Code::PAM_ACCT_EXPIRED),
        // The account phase tells the application to have it changed.
        Answer::PasswordExpired => (Level::Notice, Code::PAM_SUCCESS),
        Answer::Later => (Level::Notice, Code::PAM_MAXTRIES),
    };
    if level != Level::Debug || arguments.debug {
        host.log(level, &format!("{login} for {service}: {}", describe(answer)));
    }
    code
}

fn describe(answer: Answer) -> &'static str {
    match answer {
        Answer::Granted => "granted",
        Answer::Absent => "no such account",
        Answer::Wrong => "wrong password",
        Answer::Disabled => "account is disabled or not for this service",
        Answer::Expired => "account has expired",
        Answer::PasswordExpired => "password has expired",
        Answer::Later => "too many failures, try later",
    }
}

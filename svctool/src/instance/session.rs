//! The steps of `svctool try`, from an empty directory to mail in a mailbox.

use std::ffi::OsString;
use std::net::TcpListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use program::Layout;
use unix::Signal;
use unix::signals::Signals;

use super::ability::{self, Standing};
use super::keeper::{self, Keeper};
use super::store::Store;
use super::users::MailIds;
use super::view::Kind;
use super::{
    Instance, Ports, State, TryAccount, configuration, leftovers, live, proof, report, services, tree, users,
};

/// How long the daemons may take to answer, and a message to arrive.
const PATIENCE: Duration = Duration::from_secs(40);
/// The domain of every private system; `.test` exists nowhere.
const DOMAIN: &str = "indimail.test";
const PEOPLE: [&str; 2] = ["alice", "bob"];

/// What was asked for.
#[derive(Debug)]
pub struct Request {
    /// The instance's directory.
    pub dir: PathBuf,
    /// Leave it running and return.
    pub detach: bool,
    /// Print one JSON object when it is ready; steps go to stderr.
    pub json: bool,
    /// Another store than the remembered one or SQLite.
    pub store: Option<Store>,
}

/// Prints each step with its result and time.
struct Steps {
    json: bool,
    left_out: Vec<String>,
}

impl Steps {
    fn say(&self, text: &str) {
        if self.json {
            eprintln!("{text}");
        } else {
            println!("{text}");
        }
    }

    fn step(&self, name: &str, work: impl FnOnce() -> Result<String>) -> Result<()> {
        let start = Instant::now();
        let result = work().with_context(|| name.to_owned())?;
        self.say(&format!("ok    {name:<14} {result} ({:.2} s)", start.elapsed().as_secs_f64()));
        Ok(())
    }

    fn leave_out(&mut self, what: &str, why: &str) {
        self.say(&format!("left out: {what}: {why}"));
        self.left_out.push(format!("{what}: {why}"));
    }
}

/// Starts an instance and stays with it until a signal arrives, or detaches.
///
/// # Errors
/// The step that failed and why; nothing is left running then.
pub fn run(request: &Request, installed: &Layout) -> Result<()> {
    // What is made here must be readable for the mail users whatever the caller's mask.
    unix::host::umask(0o022);
    let standing = ability::examine()?;
    let instance = Instance::create(&request.dir, matches!(standing, Standing::Lesser(_)))?;
    let mut steps = Steps { json: request.json, left_out: Vec::new() };
    if let Some((pid, kind)) = keeper::running(&instance) {
        let state = instance.state()?.filter(|s| s.populated).context("it is still starting")?;
        ensure!(
            request.detach,
            "{}: already running (process {pid}); stop it with: svctool try --dir {} --stop",
            instance.dir().display(),
            instance.dir().display()
        );
        let enter = keeper::enter_prefix(&instance, pid, kind);
        return report::print(&instance, &state, &enter, pid, &steps.left_out, steps.json);
    }
    let mut signals = Signals::listen(&[Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP])?;
    let mut state = state_to_use(&instance, request.store.as_ref())?;
    let store = request.store.clone().map_or_else(|| state.store.parse(), Ok)?;
    if let Standing::Lesser(missing) = &standing {
        steps.say(&format!("note: {missing}: going on as an ordinary user"));
        steps.leave_out("separate users for the parts of the system", missing);
        leftovers::kill_all(&instance)?;
        copy_tree(&instance, installed, &MailIds::single(), &steps)?;
        ability::step_down(&instance)?;
    }
    prepare(&instance, installed, &mut state, &store, &standing, &steps)?;
    let mut keeper = Keeper::start(&instance).context("private view")?;
    let outcome = bring_up(&instance, &mut state, &mut keeper, &mut steps, &mut signals)
        .and_then(|()| stay(request, &instance, &state, &standing, &mut keeper, &steps, &mut signals));
    match outcome {
        Ok(After::Detach) => keeper.detach(),
        Ok(After::Stop) => {
            steps.say("stopping");
            keeper.stop(&instance)?;
            steps.say("ok    stopped        nothing is left running");
            Ok(())
        }
        Err(e) => {
            keeper.stop(&instance)?;
            Err(e)
        }
    }
}

enum After {
    Detach,
    Stop,
}

fn stay(
    request: &Request,
    instance: &Instance,
    state: &State,
    standing: &Standing,
    keeper: &mut Keeper,
    steps: &Steps,
    signals: &mut Signals,
) -> Result<After> {
    let (pid, _) = keeper::running(instance).context("the keeper has ended")?;
    // They are for who started this: root, also where this process no longer is.
    let mut enter = keeper.enter().to_vec();
    if matches!(standing, Standing::Lesser(_)) {
        enter.splice(0..0, ability::AS_NOBODY.map(OsString::from));
    }
    report::write_enter_script(instance, &enter)?;
    report::print(instance, state, &enter, pid, &steps.left_out, steps.json)?;
    if request.detach {
        return Ok(After::Detach);
    }
    // The reader of the object wants nothing more on stdout.
    let ordered =
        if request.json { live::wait(keeper, signals)? } else { live::watch(instance, keeper, signals)? };
    ensure!(ordered, "the instance ended by itself, see {}", logs(instance));
    Ok(After::Stop)
}

fn logs(instance: &Instance) -> String {
    instance.at("var/log").display().to_string()
}

fn state_to_use(instance: &Instance, wanted: Option<&Store>) -> Result<State> {
    let mut state = match instance.state()? {
        Some(state) => state,
        None => State {
            domain: DOMAIN.to_owned(),
            accounts: Vec::new(),
            ports: free_ports()?,
            store: wanted.unwrap_or(&Store::Sqlite).to_string(),
            populated: false,
        },
    };
    if let Some(wanted) = wanted {
        ensure!(
            wanted.to_string() == state.store,
            "this instance keeps its accounts in {}: use another --dir for {wanted}",
            state.store
        );
    }
    if !is_free(state.ports.smtp) || !is_free(state.ports.submission) {
        state.ports = free_ports()?;
    }
    Ok(state)
}

/// Programs must run below the directory, and for root the set-id one must be set-id.
fn check_mount(instance: &Instance, root: bool) -> Result<()> {
    use nix::sys::statvfs::{FsFlags, statvfs};
    let flags = statvfs(instance.dir()).with_context(|| instance.dir().display().to_string())?.flags();
    for (flag, name) in [(FsFlags::ST_NOEXEC, "noexec"), (FsFlags::ST_NOSUID, "nosuid")] {
        let matters = root || flag == FsFlags::ST_NOEXEC;
        ensure!(
            !(matters && flags.contains(flag)),
            "{}: on a file system mounted {name}: use another --dir",
            instance.dir().display()
        );
    }
    Ok(())
}

fn is_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

fn free_ports() -> Result<Ports> {
    let (one, two) = (TcpListener::bind(("127.0.0.1", 0))?, TcpListener::bind(("127.0.0.1", 0))?);
    Ok(Ports { smtp: one.local_addr()?.port(), submission: two.local_addr()?.port() })
}

fn copy_tree(instance: &Instance, installed: &Layout, ids: &MailIds, steps: &Steps) -> Result<()> {
    steps.step("programs", || {
        tree::copy(instance, installed, ids)?;
        Ok(instance.at("usr").display().to_string())
    })
}

/// Everything that is done before the private view exists.
fn prepare(
    instance: &Instance,
    installed: &Layout,
    state: &mut State,
    store: &Store,
    standing: &Standing,
    steps: &Steps,
) -> Result<()> {
    let abandoned = leftovers::kill_all(instance)?;
    if abandoned > 0 {
        steps.say(&format!("note: ended {abandoned} processes of an earlier run"));
    }
    if let Some(note) = store.exposed() {
        steps.say(note);
    }
    let root = nix::unistd::geteuid().is_root();
    check_mount(instance, root)?;
    let databases =
        if root { Some(users::of_this_machine(&instance.layer("etc"), instance.dir())?) } else { None };
    let ids = databases.as_ref().map_or_else(MailIds::single, |d| d.ids.clone());
    // Who has stepped down has done it before.
    if !matches!(standing, Standing::Lesser(_)) {
        copy_tree(instance, installed, &ids, steps)?;
    }
    steps.step("configuration", || {
        let texts = databases.as_ref().map(|d| (d.passwd.as_str(), d.group.as_str()));
        configuration::write_layer(instance, texts)?;
        configuration::make_directories(instance, &ids)?;
        configuration::write_control_files(instance, &state.domain, store, &ids)?;
        configuration::write_certificate(instance, &state.domain, &ids)?;
        services::write_all(instance, &configuration::host_name(&state.domain), state.ports, &ids)?;
        Ok(instance.at("etc/indimail").display().to_string())
    })?;
    instance.remember(state)
}

/// Everything that happens inside the view: queue, accounts, services, the proof.
fn bring_up(
    instance: &Instance,
    state: &mut State,
    keeper: &mut Keeper,
    steps: &mut Steps,
    signals: &mut Signals,
) -> Result<()> {
    let enter = keeper.enter().to_vec();
    let root = nix::unistd::geteuid().is_root();
    steps.step("private view", || Ok(describe(keeper.kind()).to_owned()))?;
    if !root && steps.left_out.is_empty() {
        steps.leave_out("separate users for the parts of the system", "needs root");
    }
    ensure!(!root || keeper.kind() == Kind::Mounts, "root could not make a mount namespace");
    steps.step("queue", || {
        let queue = instance.queue().display().to_string();
        proof::run(&enter, &["queue-fix", &queue], "")?;
        Ok(queue)
    })?;
    if !state.populated {
        steps.step("accounts", || {
            populate(state, &enter)?;
            instance.remember(state)?;
            Ok(state.accounts.iter().map(|a| a.address.as_str()).collect::<Vec<_>>().join(", "))
        })?;
    }
    check_interrupt(signals)?;
    steps.step("services", || {
        keeper.go()?;
        proof::wait_until_ready(instance, state, PATIENCE, || {
            Ok(keeper.has_ended()? || signals.take().is_some())
        })?;
        Ok(services::NAMES.join(", "))
    })?;
    let alice = state.accounts.first().context("no account")?;
    check_interrupt(signals)?;
    steps.step("message", || {
        let file = proof::message_arrives(state, alice, PATIENCE)?;
        Ok(format!("by SMTP to port {}, arrived in {}", state.ports.smtp, file.display()))
    })?;
    let kind = keeper.kind();
    if kind == Kind::None {
        steps.leave_out("getent passwd, PAM login", "this kernel gives no private view to ordinary users");
        return Ok(());
    }
    optional(steps, root, "getent", || proof::passwd_entry(&enter, alice))?;
    optional(steps, root, "login", || proof::login(&enter, alice, root))
}

/// A step that only root can count on.
fn optional(steps: &mut Steps, root: bool, name: &str, work: impl FnOnce() -> Result<String>) -> Result<()> {
    match steps.step(name, work) {
        Err(e) if !root => {
            steps.leave_out(name, &format!("{:#}", e.root_cause()));
            Ok(())
        }
        other => other,
    }
}

fn describe(kind: Kind) -> &'static str {
    match kind {
        Kind::Mounts => "own /etc and library directory, the machine's are untouched",
        Kind::UserAndMounts => "own /etc and library directory in a user namespace",
        Kind::None => "none",
    }
}

fn check_interrupt(signals: &mut Signals) -> Result<()> {
    if signals.take().is_some() {
        bail!("interrupted");
    }
    Ok(())
}

/// Makes the domain and the accounts with the tools an administrator would use.
fn populate(state: &mut State, enter: &[OsString]) -> Result<()> {
    let domain = state.domain.clone();
    let postmaster = random_text(20)?;
    proof::run(enter, &["vadddomain", "--password-fd", "0", &domain], &format!("{postmaster}\n"))?;
    state.accounts.clear();
    for person in PEOPLE {
        let address = format!("{person}@{domain}");
        let password = random_text(20)?;
        proof::run(enter, &["vadduser", "--password-fd", "0", &address], &format!("{password}\n"))?;
        let maildir = maildir_of(enter, &address)?;
        state.accounts.push(TryAccount { address, password, maildir });
    }
    state.populated = true;
    Ok(())
}

fn maildir_of(enter: &[OsString], address: &str) -> Result<PathBuf> {
    let text = proof::run(enter, &["vuserinfo", "--json", address], "")?;
    let value: serde_json::Value = serde_json::from_str(&text).context("vuserinfo --json")?;
    let maildir = value.get("maildir").and_then(serde_json::Value::as_str);
    maildir.map(PathBuf::from).context("vuserinfo --json: no maildir")
}

/// Random letters and digits that nobody confuses.
///
/// # Errors
/// The kernel has no randomness.
pub fn random_text(length: usize) -> Result<String> {
    const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut bytes = vec![0u8; length];
    getrandom::fill(&mut bytes).map_err(|e| anyhow::anyhow!("no randomness: {e}"))?;
    Ok(bytes.iter().map(|b| char::from(ALPHABET[usize::from(b % 32)])).collect())
}

//! Local mail goes through processes that stay for the next message: when they are killed or hang, only
//! their own deliveries wait.

use std::path::Path;

use e2e::instance::{Instance, mailbox};
use e2e::killing::Killer;
use e2e::kit::{PATIENCE, run, run_with_input, until};
use e2e::smtp;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const KILLED: &str = "deferral: qmail-local_was_killed_by_signal_9_(#4.3.0)/";

struct Mail {
    instance: Instance,
    killer: Killer,
}

impl Mail {
    fn new(instance: Instance) -> Self {
        let killer = Killer::new(instance.dir());
        Self { instance, killer }
    }

    fn workers(&self) -> Vec<Pid> {
        self.killer.processes(&["qmail-lworker"]).iter().map(|p| p.pid).collect()
    }

    /// The worker of the accounts, which has delivered something.
    fn worker(&self) -> Pid {
        self.instance.send_and_wait("first@workers.test");
        let workers = self.workers();
        assert_eq!(workers.len(), 1, "{workers:?}");
        workers[0]
    }

    fn log(&self) -> String {
        let service = self.instance.report.services.iter().find(|s| s.name == "qmail-send");
        String::from_utf8_lossy(&std::fs::read(&service.expect("qmail-send").log).expect("log")).into_owned()
    }

    fn count(&self, text: &str) -> usize {
        self.log().matches(text).count()
    }

    /// From the second account to the first.
    fn send(&self, id: &str) {
        let (to, from) = (self.instance.account(0), self.instance.account(1));
        let text = format!("From: {}\nMessage-ID: <{id}>\n\nbody\n", from.address);
        smtp::send(self.instance.report.ports["smtp"], &from.address, &[&to.address], &text)
            .expect("accepted");
    }

    fn copies(&self, id: &str) -> usize {
        mailbox(&self.instance.account(0).maildir).iter().filter(|m| m.contains(&format!("<{id}>"))).count()
    }

    /// What is deferred is due at once; waits until all of these are there.
    fn until_there(&self, ids: &[&str]) {
        let services = &self.instance.report.services;
        let directory = &services.iter().find(|s| s.name == "qmail-send").expect("qmail-send").directory;
        until(PATIENCE, "the deferred messages", || {
            run(self.instance.command("svc").arg("-a").arg(directory)).ok();
            ids.iter().all(|id| self.copies(id) > 0)
        });
        let queue = || run(&mut self.instance.command("qmail-qread")).stdout;
        until(PATIENCE, "an empty queue", || {
            queue().trim_end().ends_with("local 0 remote 0 todo 0 bouncing 0")
        });
        assert!(ids.iter().all(|id| self.copies(id) == 1), "one copy each");
    }
}

#[test]
fn a_killed_worker_defers_what_it_had_and_the_next_one_delivers() {
    let mail = Mail::new(Instance::start());
    let worker = mail.worker();
    let started = mail.count("starting delivery");
    kill(worker, Signal::SIGSTOP).expect("stop");
    mail.send("a@workers.test");
    mail.send("b@workers.test");
    until(PATIENCE, "two deliveries are under way", || mail.count("starting delivery") == started + 2);
    until(PATIENCE, "the spawner has handed them on", || mail.killer.are_waiting("qmail-lspawn"));
    assert_eq!((mail.copies("a@workers.test"), mail.count(KILLED)), (0, 0));
    kill(worker, Signal::SIGKILL).expect("kill");
    until(PATIENCE, "both are deferred", || mail.count(KILLED) == 2);
    mail.until_there(&["a@workers.test", "b@workers.test"]);
    let now = mail.workers();
    assert!(now.len() == 1 && now[0] != worker, "{now:?}");
    // Mail before and after it went the same way.
    mail.instance.send_and_wait("last@workers.test");
    assert_eq!(mail.workers(), now);
}

#[test]
fn a_worker_that_hangs_holds_up_its_own_user_only_and_not_for_ever() {
    let instance = Instance::start();
    instance.stop();
    let (control, alias) =
        (instance.dir().join("etc/indimail/control"), instance.dir().join("var/indimail/alias"));
    std::fs::write(control.join("timeoutlocal"), "2\n").expect("control file");
    let mut instance = instance;
    instance.restart();
    give(&instance, &alias, ".qmail-other", "./Other/\n");
    give(&instance, &alias, ".qmail-program", "./Other/\n|cat >Got\n");
    run(instance.command("sh").arg("-c").arg(format!(
        "cd '{0}' && mkdir -p Other/new Other/cur Other/tmp && chmod u+w . && touch Got && chown -R --reference=. Other Got",
        alias.display()
    )))
    .ok();
    let host = std::fs::read_to_string(control.join("me")).expect("control file me");
    let mail = Mail::new(instance);
    let worker = mail.worker();
    kill(worker, Signal::SIGSTOP).expect("stop");
    mail.send("a@workers.test");
    let inject = |local: &str| {
        let text = format!("Message-ID: <{local}@workers.test>\n\nbody\n");
        let to = format!("{local}@{}", host.trim());
        run_with_input(mail.instance.command("qmail-inject").arg(to), text.as_bytes()).ok();
    };
    let others = || mailbox(&alias.join("Other"));
    let of = |local: &str| others().iter().filter(|m| m.contains(&format!("<{local}@workers.test>"))).count();
    inject("other");
    until(PATIENCE, "mail for another user", || of("other") == 1);
    until(PATIENCE, "the one that hangs is killed", || mail.count(KILLED) == 1);
    mail.until_there(&["a@workers.test"]);
    // What needs a program gets one, and nothing is done twice for it.
    inject("program");
    let got = alias.join("Got");
    until(PATIENCE, "a program", || {
        std::fs::read_to_string(&got).unwrap_or_default().contains("<program@workers.test>")
    });
    until(PATIENCE, "its success", || mail.log().contains("success: did_1+0+1/"));
    assert_eq!((of("program"), of("other")), (1, 1));
    assert!(!mail.workers().contains(&worker));
    // Nothing stays behind.
    mail.instance.stop();
    assert_eq!(e2e::instance::processes_of(mail.instance.dir()), Vec::<String>::new());
}

/// A dot-qmail file of the alias user.
fn give(instance: &Instance, alias: &Path, name: &str, lines: &str) {
    let path = alias.join(name);
    std::fs::write(&path, lines).expect("dot-qmail file");
    run(instance.command("chown").arg("--reference").arg(alias).arg(&path)).ok();
}

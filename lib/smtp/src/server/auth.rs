//! AUTH PLAIN and AUTH LOGIN (RFC 4954, RFC 4616).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::scopes::User;
use super::{Action, Answer, Event, Login, Method, Pending, Query, Session, State};
use crate::reply::Reply;

/// Where a login dialogue stands.
#[derive(Debug)]
pub(super) enum Step {
    /// The response of PLAIN comes next.
    Plain,
    /// The name comes next.
    LoginName,
    /// The password comes next.
    LoginPassword(Vec<u8>),
}

impl Session {
    /// The methods that may be used now, in the order they are announced.
    pub(super) fn auth_methods(&self) -> Vec<Method> {
        let auth = self.policy.auth;
        let hidden = !auth.available || (auth.only_under_tls && self.connection.tls.is_none());
        let all = [(Method::Login, auth.login), (Method::Plain, auth.plain)];
        all.into_iter().filter(|(_, on)| *on && !hidden).map(|(m, _)| m).collect()
    }

    pub(super) fn auth(&mut self, argument: &[u8]) {
        if !self.policy.auth.available {
            return self.refuse(Reply::new(503, "5.3.3", "AUTH is not available"));
        }
        if self.connection.user.is_some() {
            return self.refuse(Reply::new(503, "5.5.0", "you are already authenticated"));
        }
        if self.transaction.is_some() {
            return self.refuse(Reply::new(503, "5.5.0", "no AUTH during a mail transaction"));
        }
        let (word, response) = match argument.iter().position(|&b| b == b' ') {
            Some(i) => (&argument[..i], Some(argument[i..].trim_ascii())),
            None => (argument, None),
        };
        let known = [(Method::Login, self.policy.auth.login), (Method::Plain, self.policy.auth.plain)];
        let Some((method, _)) =
            known.into_iter().find(|(m, on)| *on && word.eq_ignore_ascii_case(m.name().as_bytes()))
        else {
            return self.refuse(Reply::new(504, "5.5.1", "unrecognized authentication type"));
        };
        if self.policy.auth.only_under_tls && self.connection.tls.is_none() {
            return self.refuse(Reply::new(538, "5.7.11", "encryption required for this method"));
        }
        let step = match method {
            Method::Plain => Step::Plain,
            Method::Login => Step::LoginName,
        };
        match response {
            // A lone equals sign is an empty initial response.
            Some(b"=") => self.auth_line(step, b""),
            Some(text) => self.auth_line(step, text),
            None => self.challenge(step),
        }
    }

    fn challenge(&mut self, step: Step) {
        let text = match step {
            Step::Plain => "",
            Step::LoginName => "VXNlcm5hbWU6",
            Step::LoginPassword(_) => "UGFzc3dvcmQ6",
        };
        self.reply(&Reply::plain(334, text));
        self.state = State::Auth(step);
    }

    pub(super) fn auth_line(&mut self, step: Step, line: &[u8]) {
        if line == b"*" {
            return self.refuse(Reply::new(501, "5.0.0", "authentication cancelled"));
        }
        let Ok(text) = STANDARD.decode(line).map(Zeroizing::new) else {
            return self.malformed();
        };
        match step {
            Step::LoginName if !text.is_empty() => self.challenge(Step::LoginPassword(text.to_vec())),
            Step::LoginPassword(user) if !text.is_empty() => self.check(user, text, Method::Login),
            Step::Plain => {
                let mut fields = text.splitn(3, |&b| b == 0);
                let (_, user, password) = (fields.next(), fields.next(), fields.next());
                match (user, password) {
                    (Some(user), Some(password)) if !user.is_empty() && !password.is_empty() => {
                        self.check(user.to_vec(), Zeroizing::new(password.to_vec()), Method::Plain);
                    }
                    _ => self.malformed(),
                }
            }
            Step::LoginName | Step::LoginPassword(_) => self.malformed(),
        }
    }

    fn malformed(&mut self) {
        self.refuse(Reply::new(501, "5.5.4", "malformed auth input"));
    }

    fn check(&mut self, user: Vec<u8>, password: Zeroizing<Vec<u8>>, method: Method) {
        // Neither names nor passwords contain NUL; one that does is an attempt at something.
        if user.contains(&0) || password.contains(&0) {
            return self.malformed();
        }
        let query = Query::Authenticate { user: user.clone(), password, method };
        self.ask(query, Pending::Login { user, method });
    }

    pub(super) fn login_known(&mut self, user: Vec<u8>, method: Method, answer: &Answer) {
        let why = match answer {
            Answer::Login(Login::Granted { relay }) => {
                self.connection.user = Some(User { name: user, method, relay: *relay });
                return self.reply(&Reply::new(235, "2.0.0", "ok, go ahead"));
            }
            Answer::Login(Login::Wrong) => "wrong name or password",
            Answer::Login(Login::Disabled) => "not allowed",
            _ => {
                self.log(Event::AuthFailed { user, method, why: "temporary failure" });
                return self.refuse(Reply::new(
                    454,
                    "4.3.0",
                    "cannot authenticate right now, try again later",
                ));
            }
        };
        self.log(Event::AuthFailed { user, method, why });
        self.connection.auth_failures += 1;
        if self.connection.auth_failures >= self.policy.max_auth_failures {
            self.actions.push_back(Action::Delay(self.policy.penalty));
            return self.cut(
                Reply::new(421, "4.7.0", "too many failed authentications"),
                "too many failed authentications",
            );
        }
        self.penalize(&Reply::new(535, "5.7.8", "authentication failed"));
    }
}

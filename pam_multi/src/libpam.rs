//! [`Host`] over a real PAM handle.

use pam::constants::{PAM_PROMPT_ECHO_OFF, PamResultCode as Code};
use pam::conv::Conv;
use pam::items::{AuthTok, RHost, Service};
use pam::module::PamHandle;

use crate::decision::{Host, Level, Secret};
use crate::sys;

/// The handle of one PAM transaction.
pub(crate) struct Libpam<'a>(pub(crate) &'a mut PamHandle);

impl Host for Libpam<'_> {
    fn user(&mut self) -> Result<Vec<u8>, Code> {
        match sys::get_user(self.0) {
            Err(Code::PAM_CONV_AGAIN) => Err(Code::PAM_INCOMPLETE),
            other => other,
        }
    }

    fn earlier_password(&mut self) -> Option<Secret> {
        let item = self.0.get_item::<AuthTok<'_>>().ok().flatten()?;
        Some(Secret::new(item.as_bytes().to_vec()))
    }

    fn prompt(&mut self) -> Result<Secret, Code> {
        let conversation = self.0.get_item::<Conv<'_>>()?.ok_or(Code::PAM_CONV_ERR)?;
        let reply = conversation.send(PAM_PROMPT_ECHO_OFF, "Password: ")?.ok_or(Code::PAM_CONV_ERR)?;
        Ok(Secret::new(reply.as_bytes().to_vec()))
    }

    fn keep_password(&mut self, password: &Secret) -> Result<(), Code> {
        sys::set_authtok(self.0, password)
    }

    fn service(&mut self) -> Vec<u8> {
        match self.0.get_item::<Service<'_>>() {
            Ok(Some(name)) => name.to_bytes().to_vec(),
            Ok(None) | Err(_) => Vec::new(),
        }
    }

    fn remote_host(&mut self) -> Vec<u8> {
        match self.0.get_item::<RHost<'_>>() {
            Ok(Some(name)) => name.to_bytes().to_vec(),
            Ok(None) | Err(_) => Vec::new(),
        }
    }

    fn delay_failure(&mut self, microseconds: u32) {
        sys::fail_delay(self.0, microseconds);
    }

    fn log(&mut self, level: Level, text: &str) {
        let priority = match level {
            Level::Error => libc::LOG_ERR,
            Level::Notice => libc::LOG_NOTICE,
            Level::Debug => libc::LOG_DEBUG,
        };
        sys::syslog(self.0, priority, text);
    }
}

//! The fields that are put before the message: where it came from.

use std::os::fd::AsFd;

use crate::exit::Code;
use crate::inject::Failure;
use crate::received::{Invoker, Received};

use super::place::{Caller, controls};
use super::variables::Variables;

/// Received, and X-Originating-IP where it is asked for.
pub fn head(variables: &Variables, caller: &Caller, pid: u32, now: u64) -> Result<Vec<u8>, Failure> {
    let by = if caller.is("alias") {
        Invoker::Alias
    } else if caller.is("qmails") {
        Invoker::Bounce
    } else {
        Invoker::User { uid: caller.real_uid(), peer: peer(variables) }
    };
    let offset = unix::clock::local_offset(now);
    let host = (!variables.is_set("HIDE_HOST")).then(|| host(variables));
    let mut head = Received { pid, host, by, time: now, offset }.field();
    if let Some(ip) = originating_ip(variables, caller)? {
        head.extend_from_slice(b"X-Originating-IP: ");
        head.extend(ip.iter().map(|&b| if b.is_ascii_graphic() { b } else { b'_' }));
        head.push(b'\n');
    }
    Ok(head)
}

fn host(variables: &Variables) -> Vec<u8> {
    if let Some(name) = variables.value("HOSTNAME") {
        return name.to_vec();
    }
    match nix::unistd::gethostname() {
        Ok(name) if !name.is_empty() => name.to_string_lossy().into_owned().into_bytes(),
        _ => b"unknown".to_vec(),
    }
}

/// The peer: TCPREMOTEIP, else the other end of the first standard descriptor that is a socket.
fn peer(variables: &Variables) -> Option<Vec<u8>> {
    if let Some(ip) = variables.value("TCPREMOTEIP") {
        return Some(ip.to_vec());
    }
    if variables.is_fast() || variables.is_set("HIDE_HOST") {
        return None;
    }
    let (input, output, errors) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    [input.as_fd(), output.as_fd(), errors.as_fd()].iter().find_map(|fd| {
        let socket = std::net::TcpStream::from(fd.try_clone_to_owned().ok()?);
        Some(socket.peer_addr().ok()?.ip().to_canonical().to_string().into_bytes())
    })
}

/// FIX-14: asked for by ORIGINIPFIELD or, when that is not set, by the control file originipfield.
fn originating_ip<'v>(variables: &'v Variables, caller: &Caller) -> Result<Option<&'v [u8]>, Failure> {
    let Some(ip) = variables.value("TCPREMOTEIP") else {
        return Ok(None);
    };
    let authenticated = variables.is_set("RELAYCLIENT") || variables.is_set("TCPREMOTEINFO");
    if !authenticated || variables.is_fast() {
        return Ok(None);
    }
    let wanted = if variables.is_set("ORIGINIPFIELD") {
        variables.number("ORIGINIPFIELD").is_some_and(|n| n != 0)
    } else {
        let number = controls(variables, caller)?.number("originipfield");
        number.map_err(|e| Failure::new(Code::CONFIGURATION, e.to_string()))?.is_some_and(|n| n != 0)
    };
    Ok(wanted.then_some(ip))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head_with(pairs: &[(&'static str, &str)]) -> String {
        let variables = Variables::from(pairs);
        String::from_utf8(head(&variables, &Caller::of_this_process(), 7, 0).unwrap()).unwrap()
    }

    #[test]
    fn variables_make_the_fields() {
        let head = head_with(&[("HOSTNAME", "h.example"), ("TCPREMOTEIP", "192.0.2.7"), ("FASTQUEUE", "1")]);
        assert!(head.contains("queue 7 by host h.example\n (invoked from network 192.0.2.7, by uid "));
        assert!(!head.contains("X-Originating-IP"));
    }

    #[test]
    fn fix_14_originipfield_may_be_a_control_file_and_the_variable_overrides() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("originipfield"), "1\n").unwrap();
        let dir = dir.path().to_str().unwrap();
        let base = [("CONTROLDIR", dir), ("TCPREMOTEIP", "192.0.2.7")];
        let wanted = "\nX-Originating-IP: 192.0.2.7\n";
        assert!(!head_with(&base).contains(wanted));
        assert!(head_with(&[&base[..], &[("RELAYCLIENT", "")]].concat()).contains(wanted));
        let off = [&base[..], &[("RELAYCLIENT", ""), ("ORIGINIPFIELD", "")]].concat();
        assert!(!head_with(&off).contains(wanted));
        assert!(
            head_with(&[("TCPREMOTEIP", "192.0.2.7"), ("TCPREMOTEINFO", "me"), ("ORIGINIPFIELD", "1")])
                .contains(wanted)
        );
    }
}

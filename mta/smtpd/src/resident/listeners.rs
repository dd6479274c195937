//! Listening sockets: our own, and those that the service manager passed.

use ucspi_tcp::tcpserver::listener::Listener;
use ucspi_tcp::tcpserver::settings::Address;

use super::options::{Options, Service};

/// Opens all of them.
///
/// # Errors
/// What is wrong, for people.
pub(crate) fn open(options: &Options) -> Result<Vec<(Listener, Service)>, String> {
    let mut all = Vec::new();
    for (address, service) in &options.listen {
        let Address::Tcp { host, port } = address else { continue };
        let listener = Listener::open(address, false, None, options.backlog)
            .map_err(|e| format!("cannot listen on {host}:{port}: {e}"))?;
        all.push((listener, *service));
    }
    if options.inherit {
        let passed = sd_notify::listen_fds_with_names().map_err(|e| format!("inherited sockets: {e}"))?;
        for (fd, name) in passed {
            let listener = Listener::inherit(fd).map_err(|e| format!("inherited socket {name}: {e}"))?;
            if matches!(listener, Listener::Unix(..)) {
                return Err(format!("inherited socket {name}: expected an IPv4 or IPv6 socket"));
            }
            // A socket without a name has that of its unit; then the port decides.
            all.push((listener, Service::named(&name).unwrap_or_default()));
        }
    }
    if all.is_empty() {
        return Err("no listening socket was inherited: start it from a socket unit, or use --listen".into());
    }
    Ok(all)
}

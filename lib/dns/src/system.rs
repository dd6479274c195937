//! The resolver that /etc/resolv.conf describes.

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::{RData, RecordType};

use super::{Dns, Mx, Records, Unavailable};

/// One question takes at most this long, all servers and retries together.
const PATIENCE: Duration = Duration::from_secs(40);

/// Asks the servers of /etc/resolv.conf.
#[derive(Debug)]
pub struct System {
    runtime: tokio::runtime::Runtime,
    resolver: TokioResolver,
}

impl System {
    /// Reads /etc/resolv.conf.
    ///
    /// # Errors
    /// It cannot be read, or the process has no descriptors left.
    pub fn new() -> Result<Self, Unavailable> {
        Self::with(|| {
            TokioResolver::builder_tokio()
                .and_then(|builder| builder.build())
                .map_err(|e| Unavailable(format!("/etc/resolv.conf: {e}")))
        })
    }

    /// Asks these servers instead; without any, those of /etc/resolv.conf.
    ///
    /// # Errors
    /// As [`System::new`].
    pub fn of(servers: &[SocketAddr]) -> Result<Self, Unavailable> {
        if servers.is_empty() {
            return Self::new();
        }
        let server = |address: &SocketAddr| {
            let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
                connection.port = address.port();
                connection
            });
            NameServerConfig::new(address.ip(), true, connections.into())
        };
        let config = ResolverConfig::from_name_servers(servers.iter().map(server).collect());
        Self::with(|| {
            TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
                .build()
                .map_err(|e| Unavailable(e.to_string()))
        })
    }

    fn with(build: impl FnOnce() -> Result<TokioResolver, Unavailable>) -> Result<Self, Unavailable> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| Unavailable(e.to_string()))?;
        let resolver = runtime.block_on(async { build() })?;
        Ok(Self { runtime, resolver })
    }

    /// The data of all answers of one type; `None`: no such name.
    fn ask(&self, name: &str, kind: RecordType) -> Result<Option<Vec<RData>>, Unavailable> {
        // A name with a last dot is not tried below the search domains.
        let question = self.resolver.lookup(format!("{}.", name.trim_end_matches('.')), kind);
        let answer = self.within(question).map_err(|e| Unavailable(format!("{name}: {e}")))?;
        match answer {
            Ok(lookup) => Ok(Some(lookup.answers().iter().map(|r| r.data.clone()).collect())),
            Err(NetError::Dns(DnsError::NoRecordsFound(none))) => match none.response_code {
                ResponseCode::NXDomain => Ok(None),
                ResponseCode::NoError => Ok(Some(Vec::new())),
                other => Err(Unavailable(format!("{name}: {other}"))),
            },
            Err(e) => Err(Unavailable(format!("{name}: {e}"))),
        }
    }

    fn within<T>(&self, question: impl Future<Output = T>) -> Result<T, &'static str> {
        self.runtime
            .block_on(async { tokio::time::timeout(PATIENCE, question).await })
            .map_err(|_| "the DNS does not answer")
    }
}

impl Dns for System {
    fn mx(&self, domain: &str) -> Result<Option<Vec<Mx>>, Unavailable> {
        let found = self.ask(domain, RecordType::MX)?;
        Ok(found.map(|all| {
            let mx = |data| match data {
                RData::MX(mx) => Some(Mx {
                    preference: mx.preference,
                    host: mx.exchange.to_ascii().trim_end_matches('.').to_owned(),
                }),
                _ => None,
            };
            all.into_iter().filter_map(mx).collect()
        }))
    }

    fn addresses(&self, host: &str) -> Result<Option<Vec<IpAddr>>, Unavailable> {
        let ip = |data| match data {
            RData::A(a) => Some(IpAddr::V4(a.0)),
            RData::AAAA(a) => Some(IpAddr::V6(a.0)),
            _ => None,
        };
        let pick = |all: Option<Vec<RData>>| -> Option<Vec<IpAddr>> {
            all.map(|all| all.into_iter().filter_map(ip).collect())
        };
        let v4 = self.ask(host, RecordType::A).map(pick);
        if v4 == Ok(None) {
            return Ok(None);
        }
        let v6 = self.ask(host, RecordType::AAAA).map(pick);
        let mut all = Vec::new();
        for half in [&v4, &v6] {
            all.extend(half.iter().flatten().flatten());
        }
        if all.is_empty() {
            // Nothing found counts only when both halves have answered.
            v4?;
            v6?;
        }
        Ok(Some(all))
    }
}

impl Records for System {
    fn texts(&self, name: &str) -> Result<Option<Vec<Vec<u8>>>, Unavailable> {
        let found = self.ask(name, RecordType::TXT)?;
        let text = |data| match data {
            RData::TXT(text) => Some(text.txt_data.concat()),
            _ => None,
        };
        Ok(found.map(|all| all.into_iter().filter_map(text).collect()))
    }

    fn ipv4(&self, name: &str) -> Result<Option<Vec<Ipv4Addr>>, Unavailable> {
        let found = self.ask(name, RecordType::A)?;
        let address = |data| match data {
            RData::A(a) => Some(a.0),
            _ => None,
        };
        Ok(found.map(|all| all.into_iter().filter_map(address).collect()))
    }
}

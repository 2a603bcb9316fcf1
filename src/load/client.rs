//! One user's connections, and one request at a time on them.
//!
//! The one rule: what happened to a request is said as it is. A connection that cannot be opened, a request that was
//! refused, one that may have happened and one that was answered with nonsense are four different [`Ending`]s.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use anyhow::Context as _;
use kit::{Clock, Outcome};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;

use super::pacer::{Overdue, Sleeper};
use super::scenario::{Action, Origin};
use super::wire::{Answer, Malformed, Wanted};

/// An origin whose names are resolved.
pub struct Place {
    /// The addresses of each replica, the preferred first.
    replicas: Vec<Vec<SocketAddr>>,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

/// What all clients of a thread share.
pub struct Shared {
    /// Where requests go, by the index of the origin.
    pub places: Arc<Vec<Place>>,
    /// The time.
    pub clock: Clock,
    /// How long a request may take.
    pub timeout: Duration,
    /// Whether connections are used again.
    pub keep_alive: bool,
    /// Where answers are read to before they are taken apart: never held across a wait.
    pub buffer: RefCell<Box<[u8]>>,
    /// Open connections.
    pub connections: std::cell::Cell<u64>,
}

/// The connections of one user.
pub struct Client {
    shared: Rc<Shared>,
    sleeper: Rc<Sleeper>,
    /// By origin.
    connections: Vec<Option<Connection>>,
    /// Which replica the next connection goes to.
    turn: usize,
    /// The last answer.
    pub answer: Answer,
}

/// How a request ended, before its answer is judged.
#[derive(Debug, PartialEq, Eq)]
pub enum Ending {
    /// It was answered.
    Answered,
    /// It did not get as far as being sent.
    NotSent(String),
    /// It was sent, and its fate is unknown.
    Lost(String),
    /// It was answered with something that is not HTTP.
    Nonsense(String),
}

impl Ending {
    /// The outcome of an operation that ended like this without an answer to judge.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::Answered => Outcome::Ok,
            Self::NotSent(_) => Outcome::Failed,
            Self::Lost(_) => Outcome::Unknown,
            Self::Nonsense(_) => Outcome::Wrong,
        }
    }
}

/// A request that ended, and when it began to be sent.
pub struct Exchange {
    /// How it ended.
    pub ending: Ending,
    /// When its first byte was written; when it was given up, if none was.
    pub started_ns: u64,
    /// When its last byte was read, or it was given up.
    pub finished_ns: u64,
    /// When it was sent before, on a connection that its server had closed; that try may have been done.
    pub earlier_ns: Option<u64>,
}

struct Connection {
    stream: Stream,
    shared: Rc<Shared>,
    used: bool,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.connections.set(self.shared.connections.get() - 1);
    }
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Why an exchange broke off on a connection.
enum Broken {
    /// The connection ended before a byte of the answer.
    Silent(String),
    /// It ended within the answer.
    Midway(String),
    Malformed(Malformed),
}

impl Place {
    /// Resolves an origin.
    ///
    /// # Errors
    /// When a name has no address.
    pub async fn resolve(origin: &Origin, tls: Option<&TlsConnector>) -> anyhow::Result<Self> {
        let mut replicas = Vec::with_capacity(origin.replicas.len());
        for replica in &origin.replicas {
            let mut addresses: Vec<SocketAddr> = tokio::net::lookup_host(replica.as_str())
                .await
                .with_context(|| format!("cannot find the address of {replica}; check the name in the URL"))?
                .collect();
            // localhost is both, and most servers listen on the older one.
            addresses.sort_by_key(SocketAddr::is_ipv6);
            anyhow::ensure!(!addresses.is_empty(), "{replica} has no address; check the name in the URL");
            replicas.push(addresses);
        }
        let tls = match (origin.https, tls) {
            (true, Some(tls)) => Some((tls.clone(), server_name(origin)?)),
            (true, None) => anyhow::bail!("https://{} needs TLS, which was not set up", origin.authority),
            (false, _) => None,
        };
        Ok(Self { replicas, tls })
    }
}

fn server_name(origin: &Origin) -> anyhow::Result<ServerName<'static>> {
    let host = origin.replicas.first().map_or("", String::as_str);
    let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    ServerName::try_from(host).with_context(|| format!("{:?} cannot be in a certificate", origin.authority))
}

impl Client {
    /// A client without connections. `turn` says which replica its first one goes to.
    pub fn new(shared: Rc<Shared>, sleeper: Rc<Sleeper>, turn: usize) -> Self {
        let connections = shared.places.iter().map(|_| None).collect();
        Self { shared, sleeper, connections, turn, answer: Answer::default() }
    }

    /// Sends a request and reads its answer into [`Client::answer`].
    pub async fn exchange(&mut self, action: &Action, request: &[u8]) -> Exchange {
        let mut earlier_ns = None;
        let exchange = loop {
            let exchange = self.attempt(action, request, &mut earlier_ns).await;
            if let Some(exchange) = exchange {
                break exchange;
            }
        };
        self.sleeper.no_deadline();
        exchange
    }

    /// None when it must be tried again, on a new connection.
    async fn attempt(&mut self, action: &Action, request: &[u8], earlier_ns: &mut Option<u64>) -> Option<Exchange> {
        let connection = match self.connection(action.origin).await {
            Ok(connection) => connection,
            Err(error) => {
                let now_ns = self.shared.clock.now_ns();
                let ending = match earlier_ns {
                    Some(_) if !action.safe => Ending::Lost(error),
                    _ => Ending::NotSent(error),
                };
                return Some(Exchange { ending, started_ns: now_ns, finished_ns: now_ns, earlier_ns: *earlier_ns });
            }
        };
        self.answer.reset();
        let wanted = Wanted { head_only: action.head_only, body: action.wants_body(), headers: &action.headers };
        let Self { shared, sleeper, answer, .. } = self;
        let mut connection = connection;
        let was_used = std::mem::replace(&mut connection.used, true);
        let started_ns = shared.clock.now_ns();
        sleeper.set_deadline(started_ns.saturating_add(shared.timeout.as_nanos() as u64));
        let result = sleeper.until_deadline(converse(&mut connection.stream, request, answer, wanted, shared)).await;
        let finished_ns = shared.clock.now_ns();
        let ending = match result {
            Ok(Ok(())) => {
                if answer.keep_alive && shared.keep_alive {
                    self.connections[action.origin] = Some(connection);
                }
                Ending::Answered
            }
            // Its server probably closed it while it was idle, but may have read this request before.
            Ok(Err(Broken::Silent(_))) if was_used && action.idempotent && earlier_ns.is_none() => {
                *earlier_ns = Some(started_ns);
                return None;
            }
            Ok(Err(Broken::Silent(error) | Broken::Midway(error))) => Ending::Lost(error),
            Ok(Err(Broken::Malformed(error))) => Ending::Nonsense(error.to_string()),
            Err(Overdue) => Ending::Lost(timed_out(shared.timeout)),
        };
        Some(Exchange { ending, started_ns, finished_ns, earlier_ns: *earlier_ns })
    }

    fn set_deadline(&self, now_ns: u64) {
        self.sleeper.set_deadline(now_ns.saturating_add(self.shared.timeout.as_nanos() as u64));
    }

    /// The open connection to an origin, or a new one. Both opening it and the exchange may take a whole time-out.
    async fn connection(&mut self, origin: usize) -> Result<Connection, String> {
        if let Some(mut connection) = self.connections[origin].take()
            && is_quiet(&mut connection.stream, &self.shared.buffer).await
        {
            return Ok(connection);
        }
        self.set_deadline(self.shared.clock.now_ns());
        let place = &self.shared.places[origin];
        let addresses = &place.replicas[self.turn % place.replicas.len()];
        self.turn = self.turn.wrapping_add(1);
        let opened = self.sleeper.until_deadline(open(addresses, place.tls.as_ref())).await;
        let stream = opened.map_err(|Overdue| format!("no connection after {:?}", self.shared.timeout))??;
        self.shared.connections.set(self.shared.connections.get() + 1);
        Ok(Connection { stream, shared: self.shared.clone(), used: false })
    }
}

/// The stable text of a request given up.
pub fn timed_out(timeout: Duration) -> String {
    format!("timed out after {timeout:?}")
}

async fn open(addresses: &[SocketAddr], tls: Option<&(TlsConnector, ServerName<'static>)>) -> Result<Stream, String> {
    let mut last = "no address".to_owned();
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                let _ = stream.set_nodelay(true);
                let Some((connector, name)) = tls else { return Ok(Stream::Plain(stream)) };
                let stream = connector.connect(name.clone(), stream).await;
                return stream.map(|stream| Stream::Tls(Box::new(stream))).map_err(|error| format!("TLS: {error}"));
            }
            Err(error) => last = words(&error),
        }
    }
    Err(last)
}

/// An error in words that stay the same from one request to the next.
fn words(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted => {
            "connection reset".to_owned()
        }
        ErrorKind::UnexpectedEof => "connection closed before the answer".to_owned(),
        ErrorKind::AddrNotAvailable => "no free local port (EADDRNOTAVAIL)".to_owned(),
        _ => match error.raw_os_error() {
            Some(24) => "too many open files (EMFILE)".to_owned(),
            _ => error.to_string(),
        },
    }
}

/// Whether nothing has happened on an idle connection: an end or unasked bytes make it useless.
async fn is_quiet(stream: &mut Stream, buffer: &RefCell<Box<[u8]>>) -> bool {
    poll_fn(|context| {
        let mut buffer = buffer.borrow_mut();
        Poll::Ready(stream.poll_read(context, &mut ReadBuf::new(&mut buffer)).is_pending())
    })
    .await
}

/// Writes a request and reads its answer.
async fn converse(
    stream: &mut Stream,
    request: &[u8],
    answer: &mut Answer,
    wanted: Wanted<'_>,
    shared: &Shared,
) -> Result<(), Broken> {
    let mut sent = 0;
    // An answer may come, and the connection end, before the request is all sent: then reading tells.
    let written = poll_fn(|context| stream.poll_write_all(context, request, &mut sent)).await;
    poll_fn(|context| read_answer(stream, context, answer, wanted, shared)).await.map_err(|broken| {
        match (&written, broken) {
            (Err(error), Broken::Silent(_)) => Broken::Silent(words(error)),
            (_, broken) => broken,
        }
    })
}

fn read_answer(
    stream: &mut Stream,
    context: &mut Context<'_>,
    answer: &mut Answer,
    wanted: Wanted<'_>,
    shared: &Shared,
) -> Poll<Result<(), Broken>> {
    let mut buffer = shared.buffer.borrow_mut();
    loop {
        let mut read = ReadBuf::new(&mut buffer);
        let result = ready!(stream.poll_read(context, &mut read));
        let input = read.filled();
        let broken = |error: io::Error| match answer.bytes {
            0 => Broken::Silent(words(&error)),
            _ => Broken::Midway(words(&error)),
        };
        match result {
            Err(error) => return Poll::Ready(Err(broken(error))),
            Ok(()) if input.is_empty() => {
                let before = answer.bytes;
                return Poll::Ready(match (answer.close(), before) {
                    (true, _) => Ok(()),
                    (false, 0) => Err(Broken::Silent("connection closed before the answer".to_owned())),
                    (false, _) => Err(Broken::Midway("connection closed within the answer".to_owned())),
                });
            }
            Ok(()) => {
                let used = match answer.feed(input, wanted) {
                    Ok(used) => used,
                    Err(malformed) => return Poll::Ready(Err(Broken::Malformed(malformed))),
                };
                if used < input.len() {
                    return Poll::Ready(Err(Broken::Malformed(Malformed("bytes after the end of the body"))));
                }
                if answer.is_done() {
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

impl Stream {
    fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_read(context, buffer),
        }
    }

    fn poll_write_all(&mut self, context: &mut Context<'_>, bytes: &[u8], sent: &mut usize) -> Poll<io::Result<()>> {
        while *sent < bytes.len() {
            let rest = &bytes[*sent..];
            let written = match self {
                Self::Plain(stream) => ready!(Pin::new(stream).poll_write(context, rest))?,
                Self::Tls(stream) => ready!(Pin::new(&mut **stream).poll_write(context, rest))?,
            };
            if written == 0 {
                return Poll::Ready(Err(ErrorKind::WriteZero.into()));
            }
            *sent += written;
        }
        match self {
            Self::Plain(_) => Poll::Ready(Ok(())),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_flush(context),
        }
    }
}

/// What it takes to speak TLS: the system's roots, or no check at all.
///
/// # Errors
/// When the system's certificates cannot be read.
pub fn tls(insecure: bool) -> anyhow::Result<TlsConnector> {
    use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .context("setting up TLS")?;
    let mut config = if insecure {
        builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate)).with_no_client_auth()
    } else {
        let mut roots = RootCertStore::empty();
        let (added, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        anyhow::ensure!(
            added > 0,
            "this system has no root certificates; install its ca-certificates, or accept any certificate with --insecure"
        );
        builder.with_root_certificates(roots).with_no_client_auth()
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Accepts whatever certificate a server shows, because its user said so.
#[derive(Debug)]
struct AnyCertificate;

mod any_certificate {
    use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use tokio_rustls::rustls::crypto::ring;
    use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use tokio_rustls::rustls::{DigitallySignedStruct, Error, SignatureScheme};

    impl ServerCertVerifier for super::AnyCertificate {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            ring::default_provider().signature_verification_algorithms.supported_schemes()
        }
    }
}

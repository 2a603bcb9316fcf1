//! Serves an axum router on a bound listener, and ends in bounded time.

use std::net::TcpListener;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpStream;

use crate::shutdown::{HARD_DEADLINE, Shutdown};

/// Serves until `shutdown` is requested, then accepts nothing more, lets requests under way finish, closes idle
/// connections at once, and drops what is left after [`HARD_DEADLINE`].
///
/// # Errors
/// When the listener cannot be used.
pub async fn serve(listener: TcpListener, router: Router, shutdown: Shutdown) -> anyhow::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let connections = GracefulShutdown::new();
    let mut tasks = tokio::task::JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.requested() => break,
        };
        match accepted {
            Ok((stream, _)) => {
                let connection = connection(stream, router.clone());
                let connection = connections.watch(connection);
                // A connection that breaks is the client's business: its next request says so.
                tasks.spawn(async move {
                    let _ = connection.await;
                });
            }
            // Out of file descriptors, or a client that left before it was accepted: wait and go on.
            Err(error) => {
                eprintln!("accept: {error}");
                pause().await;
            }
        }
        while tasks.try_join_next().is_some() {}
    }
    drop(listener);
    let _ = tokio::time::timeout(HARD_DEADLINE, connections.shutdown()).await;
    tasks.shutdown().await;
    Ok(())
}

type Service = hyper_util::service::TowerToHyperService<Router>;

fn connection(
    stream: TcpStream,
    router: Router,
) -> hyper::server::conn::http1::Connection<TokioIo<TcpStream>, Service> {
    let _ = stream.set_nodelay(true);
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(stream), hyper_util::service::TowerToHyperService::new(router))
}

#[expect(clippy::disallowed_methods, reason = "a real socket is out of real resources")]
async fn pause() {
    tokio::time::sleep(Duration::from_millis(50)).await;
}

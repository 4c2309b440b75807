//! Serves HTTP/1.1 on connections that others accepted, each within its bounds.

use std::sync::Arc;

use axum::Router;
use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use posthouse_conf::Http;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Served {
    /// By the client, or after its last answer at shutdown.
    Done,
    /// A broken request or a broken connection.
    Broken,
    /// At `http.connection_timeout`.
    TooLong,
}

/// Least that hyper accepts as its buffer.
const BUFFER_MIN: usize = 8192;

/// Accepts until `shutdown` turns true or its sender goes, then lets each connection finish the answer it is at.
pub async fn serve<L: Listener>(mut listener: L, router: Router, settings: Http, shutdown: watch::Receiver<bool>) {
    let places = Arc::new(Semaphore::new(settings.connections_max.clamp(1, Semaphore::MAX_PERMITS)));
    let mut connections = JoinSet::new();
    let mut stopping = shutdown.clone();
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await.0)
        };
        tokio::select! {
            _ = stopping.wait_for(|stop| *stop) => break,
            Some(_) = connections.join_next() => {}
            (place, io) = next => {
                let (router, settings, shutdown) = (router.clone(), settings.clone(), shutdown.clone());
                connections.spawn(async move {
                    let _place = place;
                    serve_connection(io, router, &settings, shutdown).await
                });
            }
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

/// Serves one connection to its end.
pub async fn serve_connection<I>(io: I, router: Router, settings: &Http, mut shutdown: watch::Receiver<bool>) -> Served
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(settings.request_timeout.get())
        .max_buf_size(settings.header_max.len().max(BUFFER_MIN))
        .serve_connection(TokioIo::new(io), TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    let work = async {
        tokio::select! {
            result = connection.as_mut() => return result,
            _ = shutdown.wait_for(|stop| *stop) => {}
        }
        connection.as_mut().graceful_shutdown();
        connection.await
    };
    match timeout(settings.connection_timeout.get(), work).await {
        Ok(Ok(())) => Served::Done,
        Ok(Err(_)) => Served::Broken,
        Err(_) => Served::TooLong,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::{Health, Readiness};
    use crate::router::router;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    fn waiting(parts: &[&str]) -> Arc<dyn Health> {
        let waiting_for: Vec<String> = parts.iter().map(|part| (*part).to_owned()).collect();
        Arc::new(move || Readiness { waiting_for: waiting_for.clone() })
    }

    fn start(health: Arc<dyn Health>) -> (DuplexStream, tokio::task::JoinHandle<Served>, watch::Sender<bool>) {
        let (ours, theirs) = duplex(1 << 16);
        let (stop, stopping) = watch::channel(false);
        let settings = Http::default();
        let served = tokio::spawn(async move { serve_connection(ours, router(health), &settings, stopping).await });
        (theirs, served, stop)
    }

    async fn check(health: Arc<dyn Health>, request: &str, expect: &[&str]) {
        let (mut client, served, _stop) = start(health);
        let request = format!("{request} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        client.write_all(request.as_bytes()).await.expect("a write");
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.expect("an answer");
        for part in expect {
            assert!(answer.contains(part), "{request:?}: {part:?} not in {answer:?}");
        }
        assert_eq!(served.await.expect("no panic"), Served::Done);
    }

    #[tokio::test]
    async fn every_path_answers_and_refusals_are_json() {
        let ready = || waiting(&[]);
        check(ready(), "GET /health/live", &["200 OK", "application/json", "{\"live\":true}"]).await;
        check(ready(), "GET /health/ready", &["200 OK", "{\"ready\":true,\"waiting_for\":[]}"]).await;
        let starting = waiting(&["store", "certificates"]);
        check(
            starting,
            "GET /health/ready",
            &["503", "{\"ready\":false,\"waiting_for\":[\"store\",\"certificates\"]}"],
        )
        .await;
        check(ready(), "GET /metrics", &["200 OK", "text/plain; version=0.0.4", "net_accept_pauses_total 0"]).await;
        check(ready(), "GET /other", &["404", "{\"error\":\"no such path\"}"]).await;
        check(ready(), "POST /metrics", &["405", "{\"error\":\"only GET is possible here\"}"]).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_never_ends_its_header_is_closed() {
        let (mut client, served, _stop) = start(waiting(&[]));
        client.write_all(b"GET / HTTP/1.1\r\nHost: ").await.expect("a write");
        let _ = served.await.expect("no panic");
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.expect("the end");
    }

    #[tokio::test(start_paused = true)]
    async fn a_header_over_its_bound_is_431() {
        let (mut client, served, _stop) = start(waiting(&[]));
        let header = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(20_000));
        client.write_all(header.as_bytes()).await.expect("a write");
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer:?}");
        assert_eq!(served.await.expect("no panic"), Served::Broken);
    }

    #[tokio::test]
    async fn a_node_that_is_not_ready_keeps_no_connection() {
        let ready = Arc::new(std::sync::atomic::AtomicBool::new(true));
        let asked = ready.clone();
        let health = move || match asked.load(std::sync::atomic::Ordering::SeqCst) {
            true => Readiness::default(),
            false => Readiness { waiting_for: vec!["the end of the drain".to_owned()] },
        };
        let (mut client, served, _stop) = start(Arc::new(health));
        let request = b"GET /health/ready HTTP/1.1\r\nHost: localhost\r\n\r\n";
        client.write_all(request).await.expect("a write");
        let mut first = vec![0; 1024];
        let count = client.read(&mut first).await.expect("an answer");
        let first = String::from_utf8_lossy(&first[..count]).to_lowercase();
        assert!(first.starts_with("http/1.1 200") && !first.contains("connection: close"), "{first}");
        ready.store(false, std::sync::atomic::Ordering::SeqCst);
        client.write_all(request).await.expect("the connection was kept");
        let mut last = String::new();
        client.read_to_string(&mut last).await.expect("an answer, and the end");
        assert!(last.starts_with("HTTP/1.1 503") && last.to_lowercase().contains("connection: close"), "{last}");
        assert_eq!(served.await.expect("no panic"), Served::Done);
    }

    #[tokio::test]
    async fn shutdown_ends_an_idle_connection() {
        let (_client, served, stop) = start(waiting(&[]));
        stop.send(true).expect("a receiver");
        assert_eq!(served.await.expect("no panic"), Served::Done);
    }
}

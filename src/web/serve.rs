//! Serves HTTP/1.1 and HTTP/2 on connections that others accepted, each within its bounds.
//!
//! Without TLS nobody negotiates a version: a client of HTTP/2 begins with a preface that no request of HTTP/1 can begin with
//! (RFC 9113 §3.3, §3.4).

use std::io::Cursor;
use std::sync::Arc;

use axum::Router;
use axum::http::{Request, header};
use axum::serve::Listener;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use posthouse_conf::Http;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::sync::{Notify, Semaphore, watch};
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
/// What a client of HTTP/2 says first (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

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
    let work = async {
        let (mut reader, writer) = tokio::io::split(io);
        let begun = tokio::select! {
            biased;
            begun = timeout(settings.request_timeout.get(), beginning(&mut reader)) => begun,
            _ = shutdown.wait_for(|stop| *stop) => return Served::Done,
        };
        let Ok(Ok(begun)) = begun else { return Served::Broken };
        let is_http2 = begun == PREFACE;
        let io = TokioIo::new(tokio::io::join(Cursor::new(begun).chain(reader), writer));
        let ended = match is_http2 {
            true => serve_http2(io, router, settings, shutdown).await,
            false => serve_http1(io, router, settings, shutdown).await,
        };
        if ended.is_ok() { Served::Done } else { Served::Broken }
    };
    timeout(settings.connection_timeout.get(), work).await.unwrap_or(Served::TooLong)
}

/// Reads until it is clear which version the client speaks.
async fn beginning(reader: &mut (impl AsyncRead + Unpin)) -> std::io::Result<Vec<u8>> {
    let mut begun = Vec::with_capacity(PREFACE.len());
    while begun.len() < PREFACE.len() && PREFACE.starts_with(&begun) {
        let missing = u64::try_from(PREFACE.len() - begun.len()).unwrap_or(0);
        if (&mut *reader).take(missing).read_buf(&mut begun).await? == 0 {
            break;
        }
    }
    Ok(begun)
}

async fn serve_http1<I>(
    io: I,
    router: Router,
    settings: &Http,
    mut shutdown: watch::Receiver<bool>,
) -> hyper::Result<()>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(settings.request_timeout.get())
        .max_buf_size(settings.header_max.len().max(BUFFER_MIN))
        .serve_connection(io, TowerToHyperService::new(router));
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        result = connection.as_mut() => return result,
        _ = shutdown.wait_for(|stop| *stop) => {}
    }
    connection.as_mut().graceful_shutdown();
    connection.await
}

async fn serve_http2<I>(
    io: I,
    router: Router,
    settings: &Http,
    mut shutdown: watch::Receiver<bool>,
) -> hyper::Result<()>
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin,
{
    let (router, leaves) = (TowerToHyperService::new(router), Arc::new(Notify::new()));
    let noticed = Arc::clone(&leaves);
    let service = service_fn(move |request: Request<Incoming>| {
        let (answer, leaves) = (router.call(request), Arc::clone(&noticed));
        async move {
            let answer = answer.await?;
            // What HTTP/1 says in a field, GOAWAY says here (RFC 9113 §8.2.2).
            if answer.headers().get(header::CONNECTION).is_some_and(|said| said == "close") {
                leaves.notify_one();
            }
            Ok::<_, std::convert::Infallible>(answer)
        }
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(settings.request_timeout.get())
        .keep_alive_timeout(settings.request_timeout.get())
        .max_concurrent_streams(settings.streams_max)
        .max_header_list_size(u32::try_from(settings.header_max.len()).unwrap_or(u32::MAX))
        .serve_connection(io, service);
    let mut connection = std::pin::pin!(connection);
    tokio::select! {
        result = connection.as_mut() => return result,
        _ = shutdown.wait_for(|stop| *stop) => {}
        () = leaves.notified() => {}
    }
    connection.as_mut().graceful_shutdown();
    // A client may be gone as soon as it has heard GOAWAY, whatever is still to be said.
    let _ = connection.await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::{Health, Readiness};
    use crate::router::router;
    use axum::body::Body;
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
        for begun in ["", "PRI * HT", "GET / HTTP/1.1\r\nHost: "] {
            let (mut client, served, _stop) = start(waiting(&[]));
            let began = tokio::time::Instant::now();
            client.write_all(begun.as_bytes()).await.expect("a write");
            let _ = served.await.expect("no panic");
            let mut rest = Vec::new();
            client.read_to_end(&mut rest).await.expect("the end");
            assert_eq!(began.elapsed().as_secs(), Http::default().request_timeout.get().as_secs(), "{begun:?}");
        }
    }

    type Http2 = hyper::client::conn::http2::SendRequest<Body>;

    /// A client of HTTP/2, and what its connection came to.
    async fn http2(io: DuplexStream) -> (Http2, tokio::task::JoinHandle<hyper::Result<()>>) {
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(io)).await.expect("a handshake");
        (sender, tokio::spawn(connection))
    }

    async fn ask(client: &mut Http2, path: &str) -> hyper::Result<axum::http::Response<Incoming>> {
        let request = Request::get(format!("http://localhost{path}")).body(Body::empty()).expect("a request");
        client.send_request(request).await
    }

    #[tokio::test]
    async fn http2_answers_too_and_shutdown_says_goaway() {
        let (io, served, stop) = start(waiting(&[]));
        let (mut client, connection) = http2(io).await;
        let answer = ask(&mut client, "/health/ready").await.expect("an answer");
        assert_eq!((answer.status().as_u16(), answer.version()), (200, axum::http::Version::HTTP_2));
        stop.send(true).expect("a receiver");
        // After GOAWAY the connection ends, and without an error.
        connection.await.expect("no panic").expect("a clean end");
        assert_eq!(served.await.expect("no panic"), Served::Done);
        assert!(ask(&mut client, "/health/ready").await.is_err());
    }

    #[tokio::test]
    async fn http2_is_left_by_a_node_that_is_not_ready() {
        let (io, served, _stop) = start(waiting(&["the end of the drain"]));
        let (mut client, connection) = http2(io).await;
        assert_eq!(ask(&mut client, "/health/ready").await.expect("an answer").status().as_u16(), 503);
        connection.await.expect("no panic").expect("a clean end");
        assert_eq!(served.await.expect("no panic"), Served::Done);
    }

    #[tokio::test(start_paused = true)]
    async fn http2_without_an_answer_to_a_ping_is_closed() {
        let (mut client, served, _stop) = start(waiting(&[]));
        // The preface, and settings with nothing in them (RFC 9113 §6.5).
        client.write_all(&[PREFACE, &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat()).await.expect("a write");
        assert_eq!(served.await.expect("no panic"), Served::Broken);
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

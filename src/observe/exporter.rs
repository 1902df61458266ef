//! An HTTP listener of its own for metrics: `GET /metrics`, and nothing else.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::metrics;

/// Askers at a time; one more waits to be accepted.
const AT_A_TIME: usize = 8;
/// How long a request's head may take, also of the next one on a connection.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a connection may last in all.
const LIFE: Duration = Duration::from_secs(600);
/// The wait after an accept that failed.
const PAUSE: Duration = Duration::from_millis(200);

/// Listens there.
///
/// Needs a runtime.
///
/// # Errors
/// The system's: the address is in use, is not permitted, or is none of this machine's.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { tokio::net::TcpSocket::new_v4() } else { tokio::net::TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(64)
}

/// Answers with what `page` gives, for as long as it is polled.
pub async fn serve(listener: TcpListener, page: impl Fn() -> String + Send + Sync + 'static) {
    let (page, places) = (Arc::new(page), Arc::new(Semaphore::new(AT_A_TIME)));
    // They go when this does.
    let mut askers = tokio::task::JoinSet::new();
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((tcp, _)) => {
                let page = Arc::clone(&page);
                askers.spawn(async move {
                    let _ = tokio::time::timeout(LIFE, attend(tcp, page)).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!("metrics: accept: {}", crate::words::of(&error));
                tokio::time::sleep(PAUSE).await;
            }
        }
        while askers.try_join_next().is_some() {}
    }
}

async fn attend(tcp: TcpStream, page: Arc<impl Fn() -> String>) {
    let service = service_fn(|request| answer(request, &page));
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(PATIENCE).max_buf_size(16 << 10);
    // Who breaks off has no answer to miss.
    let _ = http.serve_connection(TokioIo::new(tcp), service).await;
}

fn answer(
    request: Request<Incoming>,
    page: &Arc<impl Fn() -> String>,
) -> impl Future<Output = Result<Response<Full<Bytes>>, Infallible>> {
    let plain = |status, text: &str| {
        let mut response = Response::new(Full::from(text.to_owned()));
        *response.status_mut() = status;
        response
    };
    let mut response = match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics") => plain(StatusCode::OK, &page()),
        (&Method::GET | &Method::HEAD, _) => plain(StatusCode::NOT_FOUND, "metrics are at /metrics\n"),
        _ => plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n"),
    };
    let kind = if response.status() == StatusCode::OK { metrics::CONTENT_TYPE } else { "text/plain; charset=utf-8" };
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if response.status() == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    std::future::ready(Ok(response))
}

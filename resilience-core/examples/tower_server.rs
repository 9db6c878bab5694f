//! A web server that sheds load: a limiter, a bulkhead and a timeout as a tower layer, refusals as 429, 503 and 504.
//! `cargo run -p resilience-core --example tower_server --features http,tower`

use std::convert::Infallible;
use std::error::Error;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::time::Duration;

use http::request::Parts;
use http::{Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use resilience_core::class::http as judge;
use resilience_core::rate_limiter::delay_seconds;
use resilience_core::tower::PipelineLayer;
use resilience_core::{Bulkhead, ErrorKind, Pipeline, RateLimiter, Reason};
use tokio::net::TcpListener;
use tower::{ServiceBuilder, service_fn};

type Refused = resilience_core::Error<Infallible>;

/// What pages are made by; it knows nothing of limits.
async fn page(request: Parts) -> Result<Response<String>, Infallible> {
    Ok(Response::new(format!("this is {}\n", request.uri.path())))
}

/// What a caller is told who was refused.
fn refusal(error: &Refused) -> Response<String> {
    let status = match &error.kind {
        ErrorKind::Rejected(rejection) if rejection.reason == Reason::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        ErrorKind::TimedOut(_) => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    let mut response = Response::new(format!("{error}\n"));
    *response.status_mut() = status;
    if let Some(delay) = error.as_rejection().and_then(|rejection| rejection.retry_after) {
        response.headers_mut().insert(header::RETRY_AFTER, delay_seconds(delay).into());
    }
    response
}

async fn serve(listener: TcpListener) -> Result<(), Box<dyn Error>> {
    let pipeline = Pipeline::builder("pages")
        .rate_limiter(RateLimiter::builder("pages_rate").rate(60, Duration::from_secs(60)).burst(3).build()?)
        .bulkhead(Bulkhead::builder("pages_room").max_concurrent(100).build()?)
        .timeout(Duration::from_secs(5))
        .build()?;
    let service = ServiceBuilder::new()
        .map_result(|result: Result<_, Refused>| Ok::<_, Refused>(result.unwrap_or_else(|error| refusal(&error))))
        // Bodies can't be cloned, and a pipeline may have to repeat a request.
        .map_request(|request: Request<Incoming>| request.into_parts().0)
        .layer(PipelineLayer::new(pipeline).judged_by(judge::response))
        .service(service_fn(page));
    loop {
        let (stream, _) = listener.accept().await?;
        let service = TowerToHyperService::new(service.clone());
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

/// Asks for a page as any client would, and returns all that comes.
fn ask(server: SocketAddr) -> std::io::Result<String> {
    let mut stream = std::net::TcpStream::connect(server)?;
    stream.write_all(b"GET /home HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let server = listener.local_addr()?;
    let client = tokio::task::spawn_blocking(move || (0..5).map(|_| ask(server)).collect::<std::io::Result<Vec<_>>>());
    let answers = tokio::select! {
        stopped = serve(listener) => return stopped,
        answers = client => answers??,
    };
    for answer in &answers {
        println!("{}", answer.lines().next().unwrap_or_default());
    }
    assert!(
        answers[..3].iter().all(|answer| answer.starts_with("HTTP/1.1 200") && answer.ends_with("this is /home\n"))
    );
    assert!(answers[4].starts_with("HTTP/1.1 429") && answers[4].contains("retry-after: 1\r\n"), "{}", answers[4]);
    Ok(())
}

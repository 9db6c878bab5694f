//! A real HTTP call with retry, breaker, limiter and timeouts around it: the server is busy once, then answers.
//! `cargo run -p resilience-core --example http_client --features reqwest,tokio`

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::time::Duration;

use resilience_core::class::reqwest;
use resilience_core::{CircuitBreaker, Clock, Pipeline, RateLimiter, Retry};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = serve(["503 Service Unavailable", "200 OK"])?;
    let client = ::reqwest::Client::builder().no_proxy().build()?;

    // 12 lines: begin
    let pipeline = Pipeline::builder("search")
        .timeout(Duration::from_secs(10)) // the whole call
        .retry(Retry::default()) // 3 attempts, backoff, jitter, Retry-After
        .circuit_breaker(CircuitBreaker::builder("search_backend").build()?)
        .rate_limiter(RateLimiter::builder("search_rate").rate(500, Duration::from_secs(60)).build()?)
        .timeout(Duration::from_secs(2)) // each attempt
        .clock(Clock::system()) // or Clock::tokio(), which tokio's tests can pause
        .build()?;
    let call = || client.get(&url).send();
    let answer = pipeline.judged_by(reqwest::response).call_async(call).await?;
    // 12 lines: end

    assert_eq!(answer.status(), 200);
    assert_eq!(answer.text().await?, "answer 2");
    println!("answered at the second attempt");
    Ok(())
}

/// Answers one request after the other with these statuses, and says where.
fn serve<const N: usize>(statuses: [&'static str; N]) -> std::io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}/", listener.local_addr()?);
    std::thread::spawn(move || {
        for (number, status) in (1..).zip(statuses) {
            let (mut stream, _) = listener.accept()?;
            let mut lines = BufReader::new(stream.try_clone()?).lines();
            while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
            let body = format!("answer {number}");
            let headers = format!("content-length: {}\r\nretry-after: 0\r\nconnection: close", body.len());
            write!(stream, "HTTP/1.1 {status}\r\n{headers}\r\n\r\n{body}")?;
        }
        Ok::<(), std::io::Error>(())
    });
    Ok(url)
}

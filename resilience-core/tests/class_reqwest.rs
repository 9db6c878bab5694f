//! What reqwest's answers and errors mean, told by real connections to a server of a few lines that misbehaves.
#![cfg(feature = "reqwest")]

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use reqwest::{Client, Response, redirect};
use resilience_core::class::{Fault, reqwest as judge};
use resilience_core::{Category, Class, Classify};
use tokio::runtime::Builder;

/// A server that reads one request and then does as `serve` says, and its address.
fn server(serve: impl FnOnce(TcpStream) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
        while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
        serve(stream);
    });
    format!("http://{address}/")
}

fn answering(answer: &'static str) -> String {
    server(move |mut stream| stream.write_all(answer.as_bytes()).unwrap())
}

async fn get(url: &str) -> Result<Response, reqwest::Error> {
    Client::builder().no_proxy().redirect(redirect::Policy::limited(0)).build().unwrap().get(url).send().await
}

fn run<T>(work: impl Future<Output = T>) -> T {
    Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

fn judged(url: &str) -> Option<Class> {
    run(async { judge::response(&get(url).await) })
}

#[test]
fn an_answer_is_judged_by_its_status_and_retry_after() {
    assert_eq!(judged(&answering("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")), None);
    let busy = "HTTP/1.1 503 Service Unavailable\r\nretry-after: 7\r\ncontent-length: 0\r\n\r\n";
    let class = judged(&answering(busy)).unwrap();
    assert_eq!((class.category, class.retry_after), (Category::Resource, Some(Duration::from_secs(7))));
    let missing = judged(&answering("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")).unwrap();
    assert_eq!((missing.fault, missing.retryable), (Fault::Caller, false));
}

#[test]
fn an_error_made_from_a_status_means_what_the_status_means() {
    let url = answering("HTTP/1.1 504 Gateway Timeout\r\ncontent-length: 0\r\n\r\n");
    let error = run(async { get(&url).await.unwrap().error_for_status().unwrap_err() });
    assert_eq!(error.class(), Class::of(Category::Timeout));
}

#[test]
fn what_breaks_on_the_way_is_a_network_error_that_can_be_tried_again() {
    let nobody = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}/", listener.local_addr().unwrap())
    };
    assert_eq!(judged(&nobody), Some(Class::of(Category::Network)));
    // It hangs up without a word, or in the middle of one.
    assert_eq!(judged(&server(drop)), Some(Class::of(Category::Network)));
    assert_eq!(judged(&answering("HTTP/1.1 20")), Some(Class::of(Category::Network)));
}

#[test]
fn a_body_that_ends_early_is_a_network_error() {
    let url = answering("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nno hundred bytes");
    let error = run(async { get(&url).await.unwrap().bytes().await.unwrap_err() });
    assert_eq!(error.class(), Class::of(Category::Network), "{error:?}");
}

#[test]
fn a_timeout_is_a_timeout() {
    // The connection stays open until the client is gone.
    let url =
        server(|stream| while BufReader::new(&stream).read_line(&mut String::new()).is_ok_and(|read| read > 0) {});
    // Tokio's time is paused: it jumps to the end of the timeout once there is nothing else to do.
    let runtime = Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let error = runtime.block_on(async {
        let client = Client::builder().no_proxy().timeout(Duration::from_secs(20)).build().unwrap();
        client.get(url).send().await.unwrap_err()
    });
    assert_eq!(error.class(), Class::of(Category::Timeout));
}

#[test]
fn a_request_that_cannot_be_sent_is_the_callers_mistake() {
    for bad in ["no url", "gopher://127.0.0.1/"] {
        let class = judged(bad).unwrap();
        assert_eq!((class.category, class.retryable), (Category::Validation, false), "{bad}");
    }
}

#[test]
fn a_server_that_sends_in_circles_has_failed_for_good() {
    let url = answering("HTTP/1.1 302 Found\r\nlocation: /again\r\ncontent-length: 0\r\n\r\n");
    let class = judged(&url).unwrap();
    assert_eq!((class.category, class.retryable), (Category::Internal, false));
}

#[test]
fn a_boxed_error_is_found_again() {
    let error = run(get("no url")).unwrap_err();
    let boxed: Box<dyn std::error::Error + Send + Sync> = std::io::Error::other(error).into();
    assert_eq!(boxed.class().category, Category::Validation);
}

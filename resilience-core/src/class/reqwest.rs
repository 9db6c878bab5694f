//! What `reqwest`'s answers and errors mean. `reqwest::Error` implements [`Classify`], so a pipeline takes it as it is;
//! [`response`] judges answers as well, with their `Retry-After`.
//!
//! ```no_run
//! use resilience_core::class::reqwest;
//! use resilience_core::{Pipeline, Retry};
//!
//! # async fn search() -> Result<(), Box<dyn std::error::Error>> {
//! let client = ::reqwest::Client::new();
//! let pipeline = Pipeline::builder("search").retry(Retry::default()).build()?;
//! let answer = pipeline.judged_by(reqwest::response).call_async(|| client.get("http://localhost/").send()).await?;
//! # drop(answer);
//! # Ok(())
//! # }
//! ```
//!
//! The blocking client's answers are judged by a closure:
//! `|result| match result { Ok(ok) => http::answer(ok.status(), ok.headers(), &clock), Err(error) => Some(error.class()) }`
//! with [`http::answer`].

use std::error::Error as _;

use ::reqwest::{Error, Response};

use super::{Category, Class, Classify, http, of_chain};
use crate::clock::Clock;

/// A judge of answers, for [`Pipeline::judged_by`](crate::Pipeline::judged_by): as
/// [`http::answer`] for a response, an error says itself what it means. Goes by the system's clock.
///
/// ```
/// use reqwest::Response;
/// use resilience_core::{Category, class::reqwest::response};
///
/// let answer = Response::from(http::Response::builder().status(503).header("retry-after", "5").body("")?);
/// let class = response(&Ok(answer)).expect("a failure");
/// assert_eq!((class.category, class.retry_after.map(|pause| pause.as_secs())), (Category::Resource, Some(5)));
/// # Ok::<(), http::Error>(())
/// ```
// A judge is given whole results.
#[allow(clippy::missing_errors_doc)]
pub fn response(result: &Result<Response, Error>) -> Option<Class> {
    judge(result, &Clock::system())
}

/// [`response`] that takes the wall time from `clock`: for tests.
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use reqwest::Response;
/// use resilience_core::{Clock, class::reqwest::response_on};
///
/// let (clock, time) = Clock::manual();
/// time.set_wall(SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_740)); // 08:49:00
/// let until = "Sun, 06 Nov 1994 08:49:37 GMT";
/// let busy = http::Response::builder().status(503).header("retry-after", until).body("")?;
/// let class = response_on(clock)(&Ok(Response::from(busy))).expect("a failure");
/// assert_eq!(class.retry_after, Some(Duration::from_secs(37)));
/// # Ok::<(), http::Error>(())
/// ```
pub fn response_on(clock: Clock) -> impl Fn(&Result<Response, Error>) -> Option<Class> + Clone {
    move |result| judge(result, &clock)
}

fn judge(result: &Result<Response, Error>, clock: &Clock) -> Option<Class> {
    match result {
        Ok(response) => http::answer(response.status(), response.headers(), clock),
        Err(error) => Some(error.class()),
    }
}

/// A timeout is one; what broke on the way is a network error; what could not be sent is the caller's mistake; an
/// answer that is not what was expected is the server's. An error made from a status means what the status means, but
/// its `Retry-After` is lost: [`response`] sees it.
impl Classify for Error {
    fn class(&self) -> Class {
        if let Some(class) = self.status().and_then(http::status) {
            return class;
        }
        if self.is_timeout() {
            return Class::of(Category::Timeout);
        }
        if self.is_builder() {
            return Class::of(Category::Validation);
        }
        if self.is_redirect() || self.is_upgrade() {
            return Class::of(Category::Internal);
        }
        if self.is_decode() {
            // A connection that breaks within a body comes as an error of decoding.
            let behind = self.source().map(of_chain).filter(|class| class.category == Category::Network);
            return behind.unwrap_or(Class::of(Category::Internal));
        }
        if self.is_request() || self.is_body() || is_connect(self) {
            return Class::of(Category::Network);
        }
        Class::of(Category::Unknown)
    }
}

#[cfg(not(all(target_family = "wasm", target_os = "unknown")))]
fn is_connect(error: &Error) -> bool {
    error.is_connect()
}

/// A browser doesn't tell.
#[cfg(all(target_family = "wasm", target_os = "unknown"))]
fn is_connect(_: &Error) -> bool {
    false
}

//! What gRPC statuses mean, by gRPC's own guidance on retries (its status codes document, gRFC A6, AIP-194) and the
//! server's own word in `grpc-retry-pushback-ms` or `google.rpc.RetryInfo`.
//! `tonic::Status` implements [`Classify`], so a pipeline takes it as it is. Nothing a server sends makes it panic.
//!
//! ```
//! use resilience_core::{Classify, ManualClock, Pipeline, Retry};
//! use tonic::{Code, Status};
//!
//! # let clock = ManualClock::auto_advancing().clock();
//! # let retry = Retry::builder().clock(clock.clone()).build()?;
//! # let pipeline = Pipeline::builder("search").retry(retry).clock(clock).build()?;
//! let mut answers = [Err(Status::unavailable("restarting")), Ok("found")].into_iter();
//! assert_eq!(pipeline.call(|| answers.next().expect("two answers")).unwrap(), "found");
//! # Ok::<(), resilience_core::ConfigError>(())
//! ```

mod retry_info;

use std::time::Duration;

use ::tonic::{Code, Status};

use super::{Category, Class, Classify, Fault, MAX_RETRY_AFTER, Severity};

/// Trailing metadata by which a server says when to retry, in milliseconds; a negative number says never.
const PUSHBACK: &str = "grpc-retry-pushback-ms";

/// What a code means; `None` for `Ok`.
///
/// | code | category | fault | retryable |
/// |---|---|---|---|
/// | `Unavailable` | network | dependency | yes |
/// | `DeadlineExceeded` | timeout | dependency | no: the deadline that was sent along is over |
/// | `ResourceExhausted` | resource | dependency | when the server says when |
/// | `Internal`, `DataLoss` | internal | dependency | no |
/// | `Unknown` | unknown | dependency | no |
/// | `Aborted` | resource, low | caller | no: the whole sequence is to be repeated, not the call |
/// | `Cancelled` | unknown, low | caller | no |
/// | all others | validation | caller | no |
///
/// ```
/// use resilience_core::{Category, class::tonic::code};
/// use tonic::Code;
///
/// let unavailable = code(Code::Unavailable).expect("a failure");
/// assert_eq!((unavailable.category, unavailable.retryable), (Category::Network, true));
/// assert!(!code(Code::Internal).expect("a failure").retryable);
/// assert_eq!(code(Code::Ok), None);
/// ```
pub const fn code(code: Code) -> Option<Class> {
    Some(match code {
        Code::Ok => return None,
        Code::Unavailable => Class::of(Category::Network),
        Code::DeadlineExceeded => Class::of(Category::Timeout).retryable(false),
        Code::ResourceExhausted => Class::of(Category::Resource).retryable(false),
        Code::Internal => Class::of(Category::Internal),
        Code::DataLoss => Class::of(Category::Internal).severity(Severity::Critical),
        Code::Unknown => Class::of(Category::Unknown),
        Code::Aborted => {
            Class::of(Category::Resource).severity(Severity::Low).fault(Fault::Caller).retryable(false)
        }
        Code::Cancelled => Class::of(Category::Unknown).severity(Severity::Low).fault(Fault::Caller),
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::OutOfRange
        // The server is well; it just has no such method.
        | Code::Unimplemented
        | Code::Unauthenticated => Class::of(Category::Validation),
    })
}

/// What its [`code`] means, and what the server asked for: a pause makes it retryable whatever the code, a pushback
/// that is negative or no number makes it final (gRFC A6). Pauses are cut to [`MAX_RETRY_AFTER`].
impl Classify for Status {
    fn class(&self) -> Class {
        let Some(class) = code(self.code()) else {
            return Class::of(Category::Unknown);
        };
        if let Some(pushback) = self.metadata().get(PUSHBACK) {
            return match pushback.to_str().ok().and_then(|text| text.trim().parse::<u32>().ok()) {
                Some(millis) => class.retry_after(Duration::from_millis(millis.into()).min(MAX_RETRY_AFTER)),
                None => class.retryable(false),
            };
        }
        match retry_info::delay(self.details()) {
            Some(delay) => class.retry_after(delay.min(MAX_RETRY_AFTER)),
            None => class,
        }
    }
}

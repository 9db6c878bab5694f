//! One call of a `tower` service from its readiness to its response. Does nothing before it is polled, so a call that is
//! not needed after all costs the service nothing.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower_service::Service;

pin_project! {
    /// Waits until the service is ready, then calls it.
    pub(crate) struct ReadyCall<S, Request>
    where
        S: Service<Request>,
    {
        #[pin]
        state: State<S, Request, S::Future>,
    }
}

pin_project! {
    #[project = StateProjection]
    enum State<S, Request, F> {
        NotReady { service: S, request: Option<Request> },
        Called { #[pin] future: F },
    }
}

impl<S: Service<Request>, Request> ReadyCall<S, Request> {
    pub(crate) fn new(service: S, request: Request) -> Self {
        Self { state: State::NotReady { service, request: Some(request) } }
    }
}

impl<S: Service<Request>, Request> Future for ReadyCall<S, Request> {
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                StateProjection::Called { future } => return future.poll(cx),
                StateProjection::NotReady { service, request } => {
                    ready!(service.poll_ready(cx))?;
                    let Some(request) = request.take() else {
                        unreachable!("the request is taken once, when the state changes to called")
                    };
                    let future = service.call(request);
                    this.state.set(State::Called { future });
                }
            }
        }
    }
}

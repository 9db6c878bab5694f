//! The HTTP side of the misbehaving registry: accept loop, routes and the faults on the wire.
//! Every connection is a task of one set, so that closing the port or stopping leaves none behind.

use std::error::Error as _;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use hyper::header::{self, HeaderValue};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;

use super::{Command, Fault, Shared};
use crate::registry::Checksum;

pub(super) async fn run(
    listener: std::net::TcpListener,
    addr: SocketAddr,
    shared: Arc<Shared>,
    mut commands: UnboundedReceiver<Command>,
) {
    let mut listener = TcpListener::from_std(listener).ok();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            command = commands.recv() => match command {
                Some(Command::Listen { open: false, done }) => {
                    listener = None;
                    connections.shutdown().await;
                    let _ = done.send(Ok(()));
                }
                Some(Command::Listen { open: true, done }) => {
                    let opened = match &listener {
                        Some(_) => Ok(()),
                        None => reopen(addr).await.map(|reopened| listener = Some(reopened)),
                    };
                    let _ = done.send(opened);
                }
                Some(Command::Stop) | None => return,
            },
            accepted = accept(listener.as_ref()) => if let Ok((stream, _)) = accepted {
                shared.lock().stats.connections += 1;
                connections.spawn(serve(stream, Arc::clone(&shared)));
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn accept(listener: Option<&TcpListener>) -> io::Result<(TcpStream, SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

/// Binds the port again. It was free a moment ago; if an outgoing connection sits on it, that passes.
async fn reopen(addr: SocketAddr) -> io::Result<TcpListener> {
    for _ in 0..50 {
        if let Ok(listener) = TcpListener::bind(addr).await {
            return Ok(listener);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    TcpListener::bind(addr).await
}

/// The request is to be answered by a reset.
#[derive(Debug, thiserror::Error)]
#[error("reset on purpose")]
struct ResetConnection;

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let _ = stream.set_nodelay(true);
    let service = hyper::service::service_fn(move |request| answer(request, Arc::clone(&shared)));
    let mut connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    // Other errors are faults that did their work, or a client that left.
    if let Err(error) = Pin::new(&mut connection).await
        && error.source().is_some_and(<dyn std::error::Error>::is::<ResetConnection>)
    {
        // With a zero linger, closing sends a reset instead of an orderly end.
        let _ = connection.into_parts().io.into_inner().set_zero_linger();
    }
}

async fn answer(request: Request<Incoming>, shared: Arc<Shared>) -> Result<Response<FaultyBody>, ResetConnection> {
    let path = request.uri().path();
    let (fault, found, cache_control) = {
        let mut state = shared.lock();
        let fault = state.next_fault(path);
        let found = if path == "/index/config.json" {
            Some(format!(r#"{{"dl":"{0}/dl","api":"{0}"}}"#, shared.base_url).into_bytes().into())
        } else if let Some(path) = path.strip_prefix("/index/") {
            state.catalog.index_file(path)
        } else {
            path.strip_prefix("/dl/").and_then(|path| state.catalog.package_file(path))
        };
        (fault, found, state.cache_control.clone())
    };
    match &fault {
        Fault::Refuse | Fault::Reset => return Err(ResetConnection),
        Fault::Stall => return std::future::pending().await,
        Fault::ServerError => return Ok(status(StatusCode::INTERNAL_SERVER_ERROR)),
        Fault::TooManyRequests { retry_after } => {
            let mut response = status(StatusCode::TOO_MANY_REQUESTS);
            response.headers_mut().insert(header::RETRY_AFTER, (*retry_after).into());
            return Ok(response);
        }
        Fault::Redirect { to } => {
            let mut response = status(StatusCode::FOUND);
            let location = HeaderValue::try_from(format!("{to}{path}")).map_err(|_| ResetConnection)?;
            response.headers_mut().insert(header::LOCATION, location);
            return Ok(response);
        }
        Fault::Oversize { bytes } => return Ok(Response::new(FaultyBody::filler(*bytes))),
        _ => {}
    }
    let Some(bytes) = found else { return Ok(status(StatusCode::NOT_FOUND)) };
    let etag = format!("\"{}\"", &Checksum::of(&bytes).to_string()[..32]);
    // A body fault needs a body: such answers are never 304.
    if fault == Fault::None
        && request.headers().get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == etag.as_bytes())
    {
        shared.lock().stats.not_modified += 1;
        let mut response = status(StatusCode::NOT_MODIFIED);
        describe(&mut response, &etag, &cache_control);
        return Ok(response);
    }
    let length = bytes.len();
    let mut response = Response::new(FaultyBody::new(&bytes, &fault));
    describe(&mut response, &etag, &cache_control);
    response.headers_mut().insert(header::CONTENT_LENGTH, length.into());
    Ok(response)
}

fn describe(response: &mut Response<FaultyBody>, etag: &str, cache_control: &str) {
    for (name, value) in [(header::ETAG, etag), (header::CACHE_CONTROL, cache_control)] {
        // Text that no header can carry is left out.
        if let Ok(value) = HeaderValue::try_from(value) {
            response.headers_mut().insert(name, value);
        }
    }
}

fn status(status: StatusCode) -> Response<FaultyBody> {
    let mut response = Response::new(FaultyBody::new(&[], &Fault::None));
    *response.status_mut() = status;
    response
}

/// A body that does to the bytes what the fault says.
struct FaultyBody {
    rest: Bytes,
    /// What comes after the bytes are out.
    then: Then,
    /// The pause before each single byte, when dripping.
    drip: Option<(Duration, Pin<Box<tokio::time::Sleep>>)>,
}

enum Then {
    End,
    Hang,
    Cut,
    /// So many more bytes of filler.
    Fill(u64),
}

impl FaultyBody {
    fn new(bytes: &[u8], fault: &Fault) -> Self {
        let half = &bytes[..bytes.len() / 2];
        let (rest, then, drip) = match fault {
            Fault::StallBody => (half.to_vec(), Then::Hang, None),
            Fault::Truncate => (half.to_vec(), Then::Cut, None),
            Fault::Corrupt => (corrupted(bytes), Then::End, None),
            Fault::Drip { pause } => (bytes.to_vec(), Then::End, Some((*pause, Box::pin(tokio::time::sleep(*pause))))),
            _ => (bytes.to_vec(), Then::End, None),
        };
        Self { rest: rest.into(), then, drip }
    }

    fn filler(bytes: u64) -> Self {
        Self { rest: Bytes::new(), then: Then::Fill(bytes), drip: None }
    }
}

/// Flips the lowest bit of the byte in the middle; text stays text, so that only a checksum can tell.
fn corrupted(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let middle = bytes.len() / 2;
    if let Some(byte) = bytes.get_mut(middle) {
        *byte ^= 1;
    }
    bytes
}

/// One frame of filler.
const FILLER: &[u8] = &[b' '; 64 * 1024];

impl Body for FaultyBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = &mut *self;
        if !this.rest.is_empty() {
            let Some((pause, sleep)) = &mut this.drip else {
                return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut this.rest)))));
            };
            std::task::ready!(sleep.as_mut().poll(context));
            sleep.as_mut().reset(tokio::time::Instant::now() + *pause);
            return Poll::Ready(Some(Ok(Frame::data(this.rest.split_to(1)))));
        }
        match &mut this.then {
            Then::End | Then::Fill(0) => Poll::Ready(None),
            // Nobody will wake this; the connection's task ends when the client leaves or the server stops.
            Then::Hang => Poll::Pending,
            Then::Cut => Poll::Ready(Some(Err(io::Error::other("cut on purpose")))),
            Then::Fill(left) => {
                let frame = FILLER.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= frame as u64;
                Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&FILLER[..frame])))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && matches!(self.then, Then::End | Then::Fill(0))
    }

    fn size_hint(&self) -> SizeHint {
        match self.then {
            Then::End => SizeHint::with_exact(self.rest.len() as u64),
            _ => SizeHint::default(),
        }
    }
}

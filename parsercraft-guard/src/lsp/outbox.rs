//! Writing to one side without ever blocking the other: frames leave in order, the sender never waits.
//! On a Unix descriptor the sender writes at once what the descriptor takes now, so that the usual message pays no
//! thread switch; the rest, and every write to a plain stream, is left to a thread.

use std::collections::VecDeque;
use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::frame::Frame;

/// What a waiting frame costs beyond its bytes, so that many tiny ones count for what they take.
const FRAME_COST: usize = 64;

/// Where an outbox writes to.
pub(crate) enum Sink {
    /// A descriptor that can be asked whether it would block.
    #[cfg_attr(not(unix), allow(dead_code, reason = "readiness of descriptors is asked on Unix only"))]
    Descriptor(File),
    Stream(Box<dyn Write + Send>),
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Descriptor(_) => "Sink::Descriptor",
            Self::Stream(_) => "Sink::Stream",
        })
    }
}

#[derive(Debug)]
pub(crate) struct Outbox {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug)]
struct Queue {
    /// Frames with how much of them is written already.
    frames: VecDeque<(Vec<u8>, usize)>,
    bytes: usize,
    /// The thread is in the middle of a frame.
    writing: bool,
    /// What the sender may write to directly.
    direct: Option<Arc<File>>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// To be closed once everything is written.
    Closing,
    Closed,
}

impl Outbox {
    /// An outbox with its thread, called `name`.
    pub(crate) fn start(sink: Sink, name: &str) -> io::Result<Arc<Self>> {
        let (direct, stream): (_, Box<dyn Write + Send>) = match sink {
            Sink::Descriptor(file) => {
                let file = Arc::new(file);
                (Some(Arc::clone(&file)), Box::new(Patient(file)))
            }
            Sink::Stream(stream) => (None, stream),
        };
        let queue = Queue { frames: VecDeque::new(), bytes: 0, writing: false, direct, state: State::Open };
        let outbox = Arc::new(Self { queue: Mutex::new(queue), changed: Condvar::new() });
        let writer = Arc::clone(&outbox);
        std::thread::Builder::new().name(name.to_owned()).spawn(move || writer.write_all(stream))?;
        Ok(outbox)
    }

    /// Sends `frame`. After the other side is gone, does nothing.
    pub(crate) fn send(&self, frame: Frame) {
        let bytes = frame.into_bytes();
        let mut queue = self.lock();
        if queue.state != State::Open {
            return;
        }
        let mut written = 0;
        if queue.frames.is_empty()
            && !queue.writing
            && let Some(file) = &queue.direct
        {
            match write_what_fits(file, &bytes) {
                Ok(count) => written = count,
                Err(_) => return self.close_now(&mut queue),
            }
        }
        if written < bytes.len() {
            queue.bytes += bytes.len() - written + FRAME_COST;
            queue.frames.push_back((bytes, written));
            self.changed.notify_all();
        }
    }

    /// Closes the stream once everything is written.
    pub(crate) fn close(&self) {
        let mut queue = self.lock();
        if queue.state == State::Open {
            queue.state = State::Closing;
            self.changed.notify_all();
        }
    }

    /// Waits until at most `max` bytes are unwritten, or the other side is gone; whether that came within `limit`.
    pub(crate) fn wait_below(&self, max: usize, limit: Duration) -> bool {
        let mut queue = self.lock();
        if queue.bytes <= max {
            return true;
        }
        let until = Instant::now() + limit;
        while queue.bytes > max && queue.state != State::Closed {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            queue = self.changed.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close_now(&self, queue: &mut Queue) {
        queue.state = State::Closed;
        queue.frames.clear();
        queue.bytes = 0;
        queue.direct = None;
        self.changed.notify_all();
    }

    fn write_all(&self, mut stream: Box<dyn Write + Send>) {
        let mut queue = self.lock();
        loop {
            match (queue.frames.pop_front(), queue.state) {
                (Some((bytes, written)), State::Open | State::Closing) => {
                    queue.writing = true;
                    drop(queue);
                    let result = stream.write_all(&bytes[written..]).and_then(|()| stream.flush());
                    queue = self.lock();
                    queue.writing = false;
                    queue.bytes = queue.bytes.saturating_sub(bytes.len() - written + FRAME_COST);
                    self.changed.notify_all();
                    if result.is_err() {
                        break;
                    }
                }
                (None, State::Open) => queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner),
                (_, State::Closed) | (None, State::Closing) => break,
            }
        }
        self.close_now(&mut queue);
    }
}

/// A descriptor that someone may have made non-blocking: waits instead of failing.
struct Patient(Arc<File>);

impl Write for Patient {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match (&*self.0).write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => wait_until_writable(&self.0)?,
                other => return other,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What a descriptor that is ready takes without blocking: the least that POSIX and Linux promise for a pipe.
#[cfg(unix)]
const PIECE: usize = if cfg!(target_os = "linux") { 4096 } else { 512 };

#[cfg(unix)]
fn write_what_fits(file: &File, bytes: &[u8]) -> io::Result<usize> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut written = 0;
    while written < bytes.len() {
        let mut fds = [PollFd::new(file, PollFlags::OUT)];
        if poll(&mut fds, Some(&now))? == 0 {
            break;
        }
        let piece = &bytes[written..bytes.len().min(written + PIECE)];
        let mut writer = file;
        match writer.write(piece) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}

#[cfg(unix)]
fn wait_until_writable(file: &File) -> io::Result<()> {
    use rustix::event::{PollFd, PollFlags, poll};
    match poll(&mut [PollFd::new(file, PollFlags::OUT)], None) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(not(unix))]
fn write_what_fits(_: &File, _: &[u8]) -> io::Result<usize> {
    Ok(0)
}

#[cfg(not(unix))]
fn wait_until_writable(_: &File) -> io::Result<()> {
    std::thread::sleep(Duration::from_millis(1));
    Ok(())
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::OwnedFd;

    fn frame(n: usize) -> Frame {
        Frame::new(format!("{n}:{}", "x".repeat((n * 7919) % 6000)))
    }

    #[test]
    fn frames_leave_in_order_through_a_pipe_that_is_nearly_always_full() {
        let (mut reader, writer) = io::pipe().expect("a pipe");
        let outbox = Outbox::start(Sink::Descriptor(File::from(OwnedFd::from(writer))), "test").expect("a thread");
        let consumer = std::thread::spawn(move || {
            let (mut all, mut chunk) = (Vec::new(), [0; 1500]);
            while let Ok(count @ 1..) = reader.read(&mut chunk) {
                all.extend_from_slice(&chunk[..count]);
            }
            all
        });
        let mut expected = Vec::new();
        for n in 0..3000 {
            expected.extend_from_slice(frame(n).as_bytes());
            outbox.send(frame(n));
            // Never far ahead, so that sender and thread meet at the pipe all the time.
            assert!(outbox.wait_below(20_000, Duration::from_secs(30)));
        }
        outbox.close();
        let got = consumer.join().expect("the consumer does not panic");
        assert!(got == expected, "{} bytes for {}", got.len(), expected.len());
    }

    #[test]
    fn a_side_that_does_not_read_blocks_nobody_and_one_that_is_gone_frees_the_memory() {
        let (reader, writer) = io::pipe().expect("a pipe");
        let outbox = Outbox::start(Sink::Descriptor(File::from(OwnedFd::from(writer))), "test").expect("a thread");
        for _ in 0..100 {
            outbox.send(Frame::new([b'x'; 10_000]));
        }
        assert!(!outbox.wait_below(1000, Duration::ZERO));
        drop(reader);
        assert!(outbox.wait_below(0, Duration::from_secs(30)));
        outbox.send(Frame::new("late"));
        assert_eq!(outbox.lock().bytes, 0);
    }

    #[test]
    fn a_plain_stream_is_written_by_the_thread() {
        let (mut reader, writer) = io::pipe().expect("a pipe");
        let outbox = Outbox::start(Sink::Stream(Box::new(writer)), "test").expect("a thread");
        outbox.send(Frame::new("{}"));
        outbox.close();
        let mut got = String::new();
        reader.read_to_string(&mut got).expect("utf-8");
        assert_eq!(got, "Content-Length: 2\r\n\r\n{}");
    }
}

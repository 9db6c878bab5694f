//! The dependency: workers behind one queue, first come, first served. It does not know who has given up waiting, so it
//! works for them all the same; a full queue refuses at once.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use resilience_core::{Category, Class, Classify};

/// The server had no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Busy;

impl Classify for Busy {
    fn class(&self) -> Class {
        Class::of(Category::Resource)
    }
}

/// Where a client waits for its answer.
#[derive(Default)]
struct Letter {
    answer: Option<Result<(), Busy>>,
    waker: Option<Waker>,
}

type Mailbox = Rc<RefCell<Letter>>;

pub(crate) struct Server {
    workers: usize,
    longest_queue: usize,
    mean_nanos: u64,
    random: fastrand::Rng,
    queue: VecDeque<Mailbox>,
    /// When each job under way is done; the number keeps the order of jobs that are done together.
    under_way: BinaryHeap<Reverse<(u64, u64)>>,
    jobs: std::collections::HashMap<u64, Mailbox>,
    started: u64,
    pub(crate) received: u64,
}

impl Server {
    /// `workers` that take half to one and a half of `mean_nanos` for each job.
    pub(crate) fn new(workers: usize, mean_nanos: u64, longest_queue: usize, seed: u64) -> Self {
        Self {
            workers,
            longest_queue,
            mean_nanos,
            random: fastrand::Rng::with_seed(seed),
            queue: VecDeque::new(),
            under_way: BinaryHeap::new(),
            jobs: std::collections::HashMap::new(),
            started: 0,
            received: 0,
        }
    }

    pub(crate) fn set_workers(&mut self, workers: usize) {
        self.workers = workers;
    }

    pub(crate) fn queued(&self) -> usize {
        self.queue.len()
    }

    /// Ends what is done by `now` and starts what there is a worker for.
    pub(crate) fn work(&mut self, now: u64) {
        while let Some(Reverse((done, job))) = self.under_way.peek().copied()
            && done <= now
        {
            self.under_way.pop();
            if let Some(mailbox) = self.jobs.remove(&job) {
                answer(&mailbox, Ok(()));
            }
        }
        while self.under_way.len() < self.workers
            && let Some(mailbox) = self.queue.pop_front()
        {
            self.started += 1;
            let takes = self.mean_nanos / 2 + self.random.u64(0..=self.mean_nanos);
            self.under_way.push(Reverse((now + takes, self.started)));
            self.jobs.insert(self.started, mailbox);
        }
    }

    fn submit(&mut self, mailbox: &Mailbox) {
        self.received += 1;
        if self.queue.len() >= self.longest_queue {
            answer(mailbox, Err(Busy));
        } else {
            self.queue.push_back(Rc::clone(mailbox));
        }
    }
}

fn answer(mailbox: &Mailbox, answer: Result<(), Busy>) {
    let mut letter = mailbox.borrow_mut();
    letter.answer = Some(answer);
    let waker = letter.waker.take();
    drop(letter);
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// One request on its way. Dropping it is giving up waiting: the server is not told.
pub(crate) struct Request {
    server: Rc<RefCell<Server>>,
    sent: Option<Mailbox>,
}

impl Request {
    pub(crate) fn to(server: &Rc<RefCell<Server>>) -> Self {
        Self { server: Rc::clone(server), sent: None }
    }
}

impl Future for Request {
    type Output = Result<(), Busy>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let mailbox = this.sent.get_or_insert_with(|| {
            let mailbox = Mailbox::default();
            this.server.borrow_mut().submit(&mailbox);
            mailbox
        });
        let mut letter = mailbox.borrow_mut();
        if letter.answer.is_none() {
            letter.waker = Some(cx.waker().clone());
        }
        letter.answer.take().map_or(Poll::Pending, Poll::Ready)
    }
}

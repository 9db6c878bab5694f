//! The clocks that features bring: each tells time, sleeps to the end, and goes with itself only.

#[cfg(feature = "tokio")]
mod tokio_clock {
    use std::pin::pin;
    use std::task::{Context, Waker};
    use std::time::Duration;

    use resilience_core::{Clock, Pipeline, RateLimiter, Retry};
    use tokio::runtime::{Builder, Runtime};

    const HOUR: Duration = Duration::from_secs(3_600);

    fn paused() -> Runtime {
        Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
    }

    #[test]
    fn tokios_paused_time_moves_it() {
        paused().block_on(async {
            let clock = Clock::tokio();
            let start = clock.now();
            assert_eq!(clock.now(), start);
            tokio::time::advance(HOUR).await;
            assert_eq!(clock.now().saturating_duration_since(start), HOUR);
            clock.sleep(HOUR).await;
            let slept = clock.now().saturating_duration_since(start);
            assert!(slept >= 2 * HOUR && slept < 2 * HOUR + Duration::from_secs(1), "{slept:?}");
            // Whoever is early stays so, and what is over is over.
            clock.sleep_until(start).await;
            assert!(clock.sleep_until(start + 2 * HOUR).deadline() <= clock.now());
        });
    }

    #[test]
    fn hours_of_backoff_pass_at_once_in_a_paused_runtime() {
        paused().block_on(async {
            let clock = Clock::tokio();
            let retry = Retry::builder().clock(clock.clone()).build().unwrap();
            let pipeline = Pipeline::builder("tokio").timeout(HOUR).retry(retry).clock(clock).build().unwrap();
            let mut attempts = 0;
            let answer = pipeline.call_async(|| {
                attempts += 1;
                let attempt = attempts;
                async move {
                    if attempt < 3 { Err(std::io::Error::from(std::io::ErrorKind::TimedOut)) } else { Ok(attempt) }
                }
            });
            assert_eq!(answer.await.unwrap(), 3);
            let hang = pipeline.call_async(std::future::pending::<std::io::Result<()>>);
            assert!(hang.await.unwrap_err().is_timed_out());
        });
    }

    #[test]
    fn two_of_them_are_the_same_clock_and_another_is_not() {
        let limiter = |clock| RateLimiter::builder("limit").clock(clock).build().unwrap();
        let waiting = |ours: Clock, its: Clock| {
            Pipeline::builder("p").rate_limiter_waiting(limiter(its), HOUR).clock(ours).build().map(drop)
        };
        waiting(Clock::tokio(), Clock::tokio()).unwrap();
        assert!(waiting(Clock::tokio(), Clock::system()).is_err());
        assert!(waiting(Clock::system(), Clock::tokio()).is_err());
    }

    #[test]
    fn outside_a_runtime_sleeps_need_none() {
        let clock = Clock::tokio();
        let mut cx = Context::from_waker(Waker::noop());
        assert!(pin!(clock.sleep(HOUR)).poll(&mut cx).is_pending());
        assert!(pin!(clock.sleep_until(clock.now())).poll(&mut cx).is_ready());
    }

    #[test]
    fn the_farthest_deadline_is_one_to_wait_for() {
        paused().block_on(async {
            let clock = Clock::tokio();
            let sleep = clock.sleep(Duration::MAX);
            assert_eq!(sleep.deadline().as_nanos(), u64::MAX);
            tokio::select! {
                biased;
                () = sleep => panic!("it ended"),
                () = clock.sleep(HOUR) => {}
            }
        });
    }
}

#[cfg(feature = "quanta")]
mod fast_clock {
    use std::pin::pin;
    use std::task::{Context, Waker};
    use std::time::Duration;

    use resilience_core::{Backoff, Clock, Pipeline, Retry};
    use tokio::runtime::Builder;

    #[test]
    fn it_goes_forward_and_sleeps_to_the_end() {
        let clock = Clock::fast();
        let mut last = clock.now();
        for _ in 0..10_000 {
            let now = clock.now();
            assert!(now >= last);
            last = now;
        }
        // A runtime without timers of its own.
        let runtime = Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut cx = Context::from_waker(Waker::noop());
            assert!(pin!(clock.sleep(Duration::from_secs(3_600))).poll(&mut cx).is_pending());
            clock.sleep_until(clock.now()).await;
        });
        clock.sleep_blocking(Duration::ZERO);
    }

    #[test]
    fn policies_go_by_it() {
        let clock = Clock::fast();
        let retry = Retry::builder().backoff(Backoff::fixed(Duration::ZERO)).clock(clock.clone()).build().unwrap();
        let pipeline =
            Pipeline::builder("fast").timeout(Duration::from_secs(60)).retry(retry).clock(clock).build().unwrap();
        let mut attempts = 0;
        let answer = pipeline.call(|| {
            attempts += 1;
            if attempts < 2 { Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset)) } else { Ok(attempts) }
        });
        assert_eq!(answer.unwrap(), 2);
    }
}

#[test]
fn clocks_say_what_they_are() {
    use resilience_core::Clock;
    assert_eq!(format!("{:?} {:?}", Clock::system(), Clock::manual().0), "Clock(system) Clock(manual)");
    #[cfg(feature = "tokio")]
    assert_eq!(format!("{:?}", Clock::tokio()), "Clock(tokio)");
    #[cfg(feature = "quanta")]
    assert_eq!(format!("{:?}", Clock::fast()), "Clock(fast)");
}

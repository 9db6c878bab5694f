//! Parsing in this process: what it survives and what it promises about threads. A deadly source would end this test.
#![cfg(all(feature = "syn", feature = "testkit"))]

use std::time::{Duration, Instant};

use parsercraft_guard::ast::{
    AstError, AstGuard, Fault, InProcess, InProcessBuilder, Languages, Operation, hostile, testkit,
};
use resilience_core::RateLimiter;

fn short() -> InProcessBuilder {
    InProcess::builder().threads(1).timeout(Duration::from_secs(1))
}

fn say(threads: &InProcess, word: &str) -> Result<usize, Fault> {
    threads
        .run("misbehaving", Operation::Parse, word)
        .map(|answer| answer.map_or(0, |output| output.as_summary().expect("a summary").bytes))
}

#[test]
fn a_panic_is_a_fault_and_the_next_call_works() {
    let threads = InProcess::builder().threads(1).build(testkit::languages()).unwrap();
    for _ in 0..3 {
        assert_eq!(say(&threads, "panic"), Err(Fault::Panicked { message: "told to panic".into() }));
        assert_eq!(say(&threads, "ok"), Ok(2));
    }
    assert_eq!(threads.stuck(), 0);
}

#[test]
fn a_parser_that_cooperates_is_stopped_and_leaves_nothing_behind() {
    let threads = short().build(testkit::languages()).unwrap();
    for _ in 0..3 {
        assert_eq!(say(&threads, "cooperate"), Err(Fault::TimedOut { limit: Duration::from_secs(1) }));
    }
    let give_up = Instant::now() + Duration::from_secs(60);
    while threads.stuck() > 0 {
        assert!(Instant::now() < give_up, "{} threads are still counted", threads.stuck());
        std::thread::yield_now();
    }
}

#[test]
fn loops_are_left_behind_up_to_a_bound_and_then_callers_are_told() {
    let threads = short().max_stuck(2).build(testkit::languages()).unwrap();
    for stuck in 1..=2 {
        assert_eq!(say(&threads, "sleep"), Err(Fault::TimedOut { limit: Duration::from_secs(1) }));
        assert_eq!(threads.stuck(), stuck);
        assert_eq!(say(&threads, "ok"), Ok(2));
    }
    // The third keeps the last thread.
    assert_eq!(say(&threads, "sleep"), Err(Fault::TimedOut { limit: Duration::from_secs(1) }));
    assert!(matches!(say(&threads, "ok"), Err(Fault::Busy { workers: 1, .. })));
    assert_eq!(threads.stuck(), 2);
}

#[test]
fn the_default_stack_holds_whatever_the_default_limits_let_through() {
    let languages = Languages::builtin();
    let threads = InProcess::builder().timeout(Duration::from_secs(120)).build(languages.clone()).unwrap();
    let limiter = RateLimiter::builder("ast_analysis").rate(1_000_000, Duration::from_secs(1)).burst(1_000_000);
    let guard = AstGuard::builder(languages, threads).limiter(limiter.build().unwrap()).build().unwrap();
    let deep = [250, 2_700, 5_400, 8_000, 16_000];
    let samples = deep.into_iter().flat_map(|depth| hostile::nested(depth).chain(hostile::chained(depth)));
    let mut answered = 0;
    for sample in samples.chain(hostile::broken()).chain(hostile::encoded()) {
        match guard.run(Operation::ControlFlow, "rust", &sample.source) {
            Ok(_) | Err(AstError::Refused(_)) => answered += 1,
            Err(AstError::Limit(_)) => {}
            Err(other) => panic!("{}: {other:?}", sample.name),
        }
    }
    assert!(answered > 300, "{answered}");
    assert!(guard.run(Operation::Parse, "rust", "fn f() {}").is_ok());
}

#[test]
fn a_guarded_parser_says_of_real_files_what_the_bare_one_says() {
    let languages = Languages::builtin();
    let threads = InProcess::builder().timeout(Duration::from_secs(120)).build(languages.clone()).unwrap();
    let guard = AstGuard::builder(languages, threads).build().unwrap();
    let mut files = vec![std::path::PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/src"))];
    let mut parsed = 0;
    while let Some(path) = files.pop() {
        if path.is_dir() {
            files.extend(path.read_dir().unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let source = std::fs::read_to_string(&path).unwrap();
            let bare = syn::parse_file(&source).map(|file| file.items.len());
            let guarded = guard.run(Operation::Parse, "rust", &source);
            match (&bare, &guarded) {
                (Ok(top_level), Ok(output)) => assert!(output.as_summary().unwrap().items >= *top_level),
                (Err(_), Err(AstError::Refused(_))) => {}
                _ => panic!("{}: {bare:?} but {guarded:?}", path.display()),
            }
            parsed += 1;
        }
    }
    assert!(parsed > 15, "{parsed}");
}

#[test]
fn settings_out_of_range_are_refused() {
    let message = |builder: InProcessBuilder| builder.build(Languages::none()).unwrap_err().to_string();
    assert_eq!(message(InProcess::builder().threads(0)), "`in_process.threads` is 0; allowed: 1 to 1024");
    assert_eq!(
        message(InProcess::builder().stack_bytes(1)),
        "`in_process.stack_bytes` is 1; allowed: 65536 to 17179869184"
    );
    assert_eq!(
        message(InProcess::builder().timeout(Duration::ZERO)),
        "`in_process.timeout` is 0; allowed: more than 0"
    );
}

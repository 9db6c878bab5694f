//! Worker processes under attack: this test binary starts itself again as the workers. Each test attacks real
//! processes; none may take this one down.

use std::collections::BTreeSet;
use std::io::BufRead;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};
use parsercraft_guard::ast::{
    AstError, AstGuard, Code, Fault, Isolation, Job, LimitExceeded, Limits, Operation, PoolError, Refusal, WorkerPool,
    WorkerPoolBuilder, hostile, testkit, worker,
};
use resilience_core::{
    BreakerState, Category, CircuitBreaker, Classify, Clock, Event, Observers, RateLimiter, Severity,
};

fn main() {
    worker::run_if_requested_with(testkit::languages);
    if std::env::var_os(ACT_AS_HOST).is_some() {
        let pool = small().build().unwrap();
        println!("{}", pool.idle_ids()[0]);
        let _ = say(&pool, "loop");
        return;
    }

    let tests: &[(&str, fn())] = &[
        ("a_call_returns_what_the_language_answers", a_call_returns_what_the_language_answers),
        (
            "every_way_to_die_is_a_typed_fault_and_the_pool_goes_on",
            every_way_to_die_is_a_typed_fault_and_the_pool_goes_on,
        ),
        ("deep_nesting_kills_a_worker_of_syn_and_only_that", deep_nesting_kills_a_worker_of_syn_and_only_that),
        ("a_number_that_takes_quadratic_time_is_stopped", a_number_that_takes_quadratic_time_is_stopped),
        ("every_operation_works_in_a_worker", every_operation_works_in_a_worker),
        ("a_batch_loses_exactly_the_calls_that_kill", a_batch_loses_exactly_the_calls_that_kill),
        ("a_batch_larger_than_the_pipes_does_not_lock_up", a_batch_larger_than_the_pipes_does_not_lock_up),
        ("a_parser_that_prints_does_not_disturb_the_frames", a_parser_that_prints_does_not_disturb_the_frames),
        ("a_worker_killed_while_idle_costs_no_call", a_worker_killed_while_idle_costs_no_call),
        ("a_stopped_worker_is_given_up_at_the_deadline", a_stopped_worker_is_given_up_at_the_deadline),
        ("workers_are_replaced_after_their_share_of_calls", workers_are_replaced_after_their_share_of_calls),
        ("callers_beyond_the_queue_are_turned_away", callers_beyond_the_queue_are_turned_away),
        ("neither_zombies_nor_descriptors_are_left", neither_zombies_nor_descriptors_are_left),
        ("workers_die_with_their_host_even_in_a_loop", workers_die_with_their_host_even_in_a_loop),
        ("workers_inherit_no_environment", workers_inherit_no_environment),
        ("a_program_that_is_no_worker_is_refused_with_advice", a_program_that_is_no_worker_is_refused_with_advice),
        ("settings_out_of_range_are_refused", settings_out_of_range_are_refused),
        ("a_bomb_kills_once_and_is_refused_from_then_on", a_bomb_kills_once_and_is_refused_from_then_on),
        ("poison_is_forgotten_after_its_time", poison_is_forgotten_after_its_time),
        ("faults_open_the_breaker_and_syntax_errors_do_not", faults_open_the_breaker_and_syntax_errors_do_not),
        ("faults_are_told_to_observers", faults_are_told_to_observers),
        ("results_come_from_the_cache_the_second_time", results_come_from_the_cache_the_second_time),
        ("each_tenant_has_its_own_rate", each_tenant_has_its_own_rate),
        ("a_guarded_batch_answers_in_order", a_guarded_batch_answers_in_order),
        ("a_language_the_workers_lack_is_a_configuration_error", a_language_the_workers_lack_is_a_configuration_error),
        ("the_hostile_corpus_takes_nothing_down", the_hostile_corpus_takes_nothing_down),
        (
            "the_hostile_corpus_past_the_limits_costs_workers_only",
            the_hostile_corpus_past_the_limits_costs_workers_only,
        ),
        ("a_real_file_cut_off_anywhere_is_answered", a_real_file_cut_off_anywhere_is_answered),
    ];
    let trials = tests.iter().map(|&(name, test)| {
        Trial::test(name, move || {
            test();
            Ok::<(), Failed>(())
        })
    });
    // One after the other: some count the descriptors and children of this process.
    let arguments = Arguments { test_threads: Some(1), ..Arguments::from_args() };
    libtest_mimic::run(&arguments, trials.collect()).exit();
}

/// Makes this program a host that is to be killed while its worker loops.
const ACT_AS_HOST: &str = "AST_WORKERS_ACT_AS_HOST";

/// Small workers with short deadlines.
fn small() -> WorkerPoolBuilder {
    WorkerPool::builder()
        .workers(1)
        .stack_bytes(2 << 20)
        .memory_bytes(512 << 20)
        .timeout(Duration::from_secs(20))
        .start_timeout(Duration::from_secs(60))
}

/// One word of the misbehaving language.
fn say(pool: &WorkerPool, word: &str) -> Result<Result<usize, Refusal>, Fault> {
    pool.run("misbehaving", Operation::Parse, word)
        .map(|answer| answer.map(|output| output.as_summary().expect("a summary").bytes))
}

fn guard(pool: WorkerPool) -> parsercraft_guard::ast::AstGuardBuilder {
    AstGuard::builder(testkit::languages(), pool)
}

fn run(guard: &AstGuard, word: &str) -> Result<(), AstError> {
    guard.run(Operation::Parse, "misbehaving", word).map(drop)
}

/// Waits for what another process does in its own time.
fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let give_up = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < give_up, "never: {what}");
        std::thread::yield_now();
    }
}

/// The children of this process with their state letter.
fn children() -> Vec<(u32, char)> {
    let me = std::process::id().to_string();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Some((state, parent)) = state_and_parent(id) else { continue };
        if parent == me {
            found.push((id, state));
        }
    }
    found
}

fn state_and_parent(id: u32) -> Option<(char, String)> {
    state_in(&format!("/proc/{id}/stat"))
}

fn state_in(stat: &str) -> Option<(char, String)> {
    let stat = std::fs::read_to_string(stat).ok()?;
    // The name in brackets may hold spaces; what follows it does not.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.to_owned()))
}

/// Whether any of its threads is at work.
fn is_running(id: u32) -> bool {
    std::fs::read_dir(format!("/proc/{id}/task")).is_ok_and(|threads| {
        threads
            .flatten()
            .any(|thread| state_in(&format!("{}/stat", thread.path().display())).is_some_and(|(state, _)| state == 'R'))
    })
}

/// Whether nothing of it is left but what its parent has not asked for. The first thread may end before the others.
fn is_gone(id: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{id}/task")).map_or(0, Iterator::count);
    state_and_parent(id).is_none_or(|(state, _)| state == 'Z' && threads <= 1)
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("/proc/self/fd").count()
}

fn signal(id: u32, signal: rustix::process::Signal) {
    let id = rustix::process::Pid::from_raw(i32::try_from(id).expect("a process id")).expect("a process id");
    rustix::process::kill_process(id, signal).expect("the process exists");
}

fn a_call_returns_what_the_language_answers() {
    let pool = small().build().unwrap();
    assert_eq!(say(&pool, "ok"), Ok(Ok(2)));
    let refused = say(&pool, "refuse").unwrap().unwrap_err();
    assert_eq!(refused.to_string(), "syntax error at line 1, column 1: `refuse` is no word of this language");
    let output = pool.run("rust", Operation::ControlFlow, "fn f() { if a {} }").unwrap().unwrap();
    assert_eq!(output.as_control_flow().unwrap()[0].cyclomatic, 2);
    assert_eq!(pool.languages().collect::<Vec<_>>(), ["formula", "misbehaving", "rust"]);
    let statistics = pool.statistics();
    assert_eq!((statistics.calls, statistics.started, statistics.lost, statistics.idle), (3, 1, 0, 1));
}

type Expected = fn(&Fault) -> bool;

fn every_way_to_die_is_a_typed_fault_and_the_pool_goes_on() {
    let pool = small().timeout(Duration::from_secs(1)).build().unwrap();
    let patient = small().cpu(Duration::from_secs(1)).build().unwrap();
    let ways: [(&WorkerPool, &str, Expected); 11] = [
        (&pool, "panic", |fault| *fault == Fault::Panicked { message: "told to panic".into() }),
        (&patient, "recurse", |fault| *fault == Fault::StackOverflow),
        (&pool, "abort", |fault| matches!(fault, Fault::Crashed { signal: 6, .. })),
        (&pool, "exit", |fault| matches!(fault, Fault::Exited { code: 7, .. })),
        (&patient, "hog", |fault| *fault == Fault::OutOfMemory { limit: 512 << 20 }),
        (&pool, "loop", |fault| *fault == Fault::TimedOut { limit: Duration::from_secs(1) }),
        (&pool, "cooperate", |fault| *fault == Fault::TimedOut { limit: Duration::from_secs(1) }),
        (&pool, "sleep", |fault| *fault == Fault::TimedOut { limit: Duration::from_secs(1) }),
        (&patient, "loop", |fault| *fault == Fault::CpuExhausted { limit: Duration::from_secs(1) }),
        (&pool, "kill", |fault| *fault == Fault::Killed { signal: 9 }),
        (&patient, "flood", |fault| {
            matches!(fault, Fault::AnswerTooLarge { allowed: 67_108_864, .. } | Fault::OutOfMemory { .. })
        }),
    ];
    for (pool, word, expected) in ways {
        let fault = say(pool, word).unwrap_err();
        assert!(expected(&fault), "{word}: {fault:?}");
        assert_eq!(say(pool, "ok"), Ok(Ok(2)), "after {word}");
    }
}

fn deep_nesting_kills_a_worker_of_syn_and_only_that() {
    let pool = small().build().unwrap();
    let bomb = format!("fn f() {{ let x = {}1{}; }}", "(".repeat(5000), ")".repeat(5000));
    assert_eq!(pool.run("rust", Operation::Parse, &bomb).unwrap_err(), Fault::StackOverflow);
    assert_eq!(pool.statistics().lost, 1);
    assert!(pool.run("rust", Operation::Parse, "fn f() {}").unwrap().is_ok());
}

fn every_operation_works_in_a_worker() {
    let guard = guard(small().build().unwrap()).build().unwrap();
    let run = |operation| guard.run(operation, "formula", "fn twice(x) = if x < 0.5 then 1.0 else x * 2.0;").unwrap();
    assert_eq!(run(Operation::Parse).as_summary().unwrap().names, ["twice"]);
    assert_eq!(run(Operation::InferTypes).as_types().unwrap()[0].type_name, "(float) -> float");
    assert_eq!(run(Operation::ControlFlow).as_control_flow().unwrap()[0].cyclomatic, 2);
    for (operation, expected) in [
        (Operation::GenerateC, "return ((v0 < 0.5) ? 1.0 : (v0 * 2.0));"),
        (Operation::GenerateWasm, "(func $twice (export \"twice\") (param f64) (result f64)"),
    ] {
        let output = run(operation);
        let Some(Code::Text(text)) = output.as_code() else { panic!("{output:?}") };
        assert!(text.contains(expected), "{text}");
    }
    let refused = guard.run(Operation::GenerateC, "formula", "fn f(x) = x + true;").unwrap_err();
    assert!(matches!(refused, AstError::Refused(Refusal::Semantic(_))), "{refused:?}");
}

fn a_number_that_takes_quadratic_time_is_stopped() {
    let pool = small().timeout(Duration::from_secs(1)).build().unwrap();
    let number = format!("const A: u8 = {};", "9".repeat(1 << 20));
    assert_eq!(pool.run("rust", Operation::Parse, &number), Err(Fault::TimedOut { limit: Duration::from_secs(1) }));
    let limits = Limits { line_bytes: usize::MAX, ..Limits::default() };
    let error = guard(pool).limits(limits).build().unwrap().run(Operation::Parse, "rust", &number).unwrap_err();
    assert_eq!(error.to_string(), "the word at line 1, column 15 has 1048576 bytes; allowed: 16384");
}

fn a_batch_loses_exactly_the_calls_that_kill() {
    let pool = small().build().unwrap();
    let words = ["ok 1", "abort 2", "ok 3", "refuse 4", "exit 5", "panic 6", "ok 7"];
    let jobs = words.map(|source| Job { language: "misbehaving", operation: Operation::Parse, source });
    let results = pool.run_batch(&jobs);
    let seen: Vec<_> = results
        .iter()
        .map(|result| match result {
            Ok(Ok(_)) => "ok",
            Ok(Err(_)) => "refused",
            Err(Fault::Crashed { signal: 6, .. }) => "aborted",
            Err(Fault::Exited { code: 7, .. }) => "exited",
            Err(Fault::Panicked { .. }) => "panicked",
            Err(_) => "something else",
        })
        .collect();
    assert_eq!(seen, ["ok", "aborted", "ok", "refused", "exited", "panicked", "ok"]);
    assert_eq!(pool.statistics().lost, 3);
    assert!(pool.run_batch(&[]).is_empty());
}

fn a_batch_larger_than_the_pipes_does_not_lock_up() {
    let pool = small().build().unwrap();
    // Both directions carry far more than a pipe holds.
    let functions: Vec<_> = (0..2000).map(|n| format!("fn a_function_with_a_long_name_{n}() {{ return; }}")).collect();
    let source = functions.join("\n");
    let jobs = vec![Job { language: "rust", operation: Operation::ControlFlow, source: &source }; 100];
    for result in pool.run_batch(&jobs) {
        assert_eq!(result.unwrap().unwrap().as_control_flow().unwrap().len(), 2000);
    }
}

fn a_parser_that_prints_does_not_disturb_the_frames() {
    let pool = small().build().unwrap();
    assert_eq!(say(&pool, "shout"), Ok(Ok(5)));
    assert_eq!(say(&pool, "ok"), Ok(Ok(2)));
    assert_eq!(pool.statistics().lost, 0);
}

fn a_worker_killed_while_idle_costs_no_call() {
    let pool = small().build().unwrap();
    let id = pool.idle_ids()[0];
    signal(id, rustix::process::Signal::KILL);
    eventually("the worker is dead", || is_gone(id));
    assert_eq!(say(&pool, "ok"), Ok(Ok(2)));
    assert_eq!((pool.statistics().lost, pool.statistics().started), (1, 2));
}

fn a_stopped_worker_is_given_up_at_the_deadline() {
    let pool = small().timeout(Duration::from_secs(1)).build().unwrap();
    let id = pool.idle_ids()[0];
    signal(id, rustix::process::Signal::STOP);
    // More than the pipe holds, so that writing cannot end either.
    let source = format!("ok {}", "x".repeat(1 << 20));
    assert_eq!(say(&pool, &source), Err(Fault::TimedOut { limit: Duration::from_secs(1) }));
    assert!(is_gone(id));
    assert_eq!(say(&pool, "ok"), Ok(Ok(2)));
}

fn workers_are_replaced_after_their_share_of_calls() {
    let pool = small().calls_per_worker(3).build().unwrap();
    let mut ids = BTreeSet::new();
    for _ in 0..9 {
        ids.extend(pool.idle_ids());
        assert_eq!(say(&pool, "ok"), Ok(Ok(2)));
    }
    assert_eq!(pool.statistics().retired, 3);
    assert_eq!((pool.statistics().started, ids.len()), (3, 3));
}

fn callers_beyond_the_queue_are_turned_away() {
    let pool = small().timeout(Duration::from_secs(2)).max_waiting(0).build().unwrap();
    std::thread::scope(|scope| {
        let busy = scope.spawn(|| say(&pool, "loop"));
        eventually("the worker is taken", || pool.statistics().idle == 0);
        assert!(matches!(say(&pool, "ok"), Err(Fault::Busy { workers: 1, .. })));
        assert!(busy.join().unwrap().is_err());
    });
    assert_eq!(say(&pool, "ok"), Ok(Ok(2)));
    let impatient = small().timeout(Duration::from_secs(2)).max_wait(Duration::from_millis(20)).build().unwrap();
    std::thread::scope(|scope| {
        let busy = scope.spawn(|| say(&impatient, "loop"));
        eventually("the worker is taken", || impatient.statistics().idle == 0);
        assert!(matches!(say(&impatient, "ok"), Err(Fault::Busy { workers: 1, .. })));
        assert!(busy.join().unwrap().is_err());
    });
}

fn neither_zombies_nor_descriptors_are_left() {
    let before = (children(), descriptors());
    {
        let pool = small().workers(3).timeout(Duration::from_millis(500)).build().unwrap();
        let live = descriptors();
        for round in 0..5 {
            for word in ["abort", "exit", "panic", "loop", "kill", "ok"] {
                let _ = say(&pool, &format!("{word} {round}"));
            }
        }
        // Workers are started again when they are needed, so there may be fewer now.
        assert!(descriptors() <= live);
        assert!(children().iter().all(|&(_, state)| state != 'Z'), "{:?}", children());
        assert!(children().len() <= before.0.len() + 3);
    }
    assert_eq!((children(), descriptors()), before);
}

fn workers_die_with_their_host_even_in_a_loop() {
    let mut host = std::process::Command::new(std::env::current_exe().unwrap())
        .env(ACT_AS_HOST, "1")
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufReader::new(host.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let id = line.trim().parse().expect("the host says its worker's id");
    eventually("the worker is busy", || is_running(id));
    assert!(!is_gone(id));
    host.kill().unwrap();
    host.wait().unwrap();
    eventually("the worker is gone", || is_gone(id));
}

fn workers_inherit_no_environment() {
    let pool = small().build().unwrap();
    let environment = std::fs::read(format!("/proc/{}/environ", pool.idle_ids()[0])).unwrap();
    let environment = String::from_utf8(environment).unwrap();
    let names: BTreeSet<_> = environment.split_terminator('\0').filter_map(|one| one.split('=').next()).collect();
    assert!(std::env::var_os("PATH").is_some());
    assert!(!names.contains("PATH"), "{names:?}");
    assert!(names.contains("PARSERCRAFT_GUARD_AST_WORKER"), "{names:?}");
}

fn a_program_that_is_no_worker_is_refused_with_advice() {
    let advice = "call `ast::worker::run_if_requested()` first in its `main`";
    for program in ["/bin/true", "/bin/cat", "/bin/echo"] {
        let error = small().program(program).build().unwrap_err();
        let PoolError::Start(Fault::Spawn { why }) = &error else { panic!("{program}: {error:?}") };
        assert!(why.contains(advice), "{why}");
    }
    let sleeper = small().program("/bin/sleep").start_timeout(Duration::from_millis(200)).build().unwrap_err();
    assert!(sleeper.to_string().contains(advice), "{sleeper}");
    let missing = small().program("/no/such/program").build().unwrap_err();
    assert_eq!(
        missing.to_string(),
        "no worker process could be started: /no/such/program: No such file or directory (os error 2)"
    );
}

fn settings_out_of_range_are_refused() {
    let message = |builder: WorkerPoolBuilder| builder.build().unwrap_err().to_string();
    assert_eq!(message(small().workers(0)), "`worker_pool.workers` is 0; allowed: 1 to 1024");
    assert_eq!(
        message(small().timeout(Duration::ZERO)),
        "`worker_pool.timeout` is 0ns; allowed: more than 0, at most 86400s"
    );
    assert_eq!(
        message(small().memory_bytes(1)),
        "`worker_pool.memory_bytes` is 1; allowed: at least 270532608 (the stack and 256 MiB)"
    );
    assert_eq!(message(small().stack_bytes(1)), "`worker_pool.stack_bytes` is 1; allowed: 65536 to 17179869184");
    assert_eq!(
        message(small().max_answer_bytes(1)),
        "`worker_pool.max_answer_bytes` is 1; allowed: 4096 to 1073741824"
    );
    assert_eq!(message(small().calls_per_worker(0)), "`worker_pool.calls_per_worker` is 0; allowed: 1 to 4294967295");
}

fn a_bomb_kills_once_and_is_refused_from_then_on() {
    let pool = small().build().unwrap();
    let guard = guard(pool.clone())
        .limits(Limits { nesting: 100_000, chain: usize::MAX, ..Limits::default() })
        .build()
        .unwrap();
    let bomb = format!("fn f() {{ let x = {}1{}; }}", "(".repeat(5000), ")".repeat(5000));
    let run = |source: &str| guard.run(Operation::Parse, "rust", source).map(drop);
    assert_eq!(run(&bomb), Err(AstError::Fault(Fault::StackOverflow)));
    for _ in 0..3 {
        assert_eq!(run(&bomb), Err(AstError::Poisoned { fault: Fault::StackOverflow }));
    }
    assert_eq!(pool.statistics().lost, 1);
    assert_eq!(run("fn f() {}"), Ok(()));
    let statistics = guard.statistics();
    assert_eq!((statistics.calls, statistics.faults, statistics.poisoned, statistics.poison_entries), (5, 1, 3, 1));
    // Another operation is another question.
    assert_eq!(guard.run(Operation::ControlFlow, "rust", &bomb).unwrap_err(), AstError::Fault(Fault::StackOverflow));
}

fn poison_is_forgotten_after_its_time() {
    let (clock, time) = Clock::manual();
    let guard = guard(small().build().unwrap()).clock(clock).poison(8, Duration::from_secs(60)).build().unwrap();
    let exited = |result: Result<(), AstError>| matches!(result, Err(AstError::Fault(Fault::Exited { code: 7, .. })));
    assert!(exited(run(&guard, "exit")));
    time.advance(Duration::from_secs(59));
    assert!(matches!(run(&guard, "exit"), Err(AstError::Poisoned { .. })));
    time.advance(Duration::from_secs(1));
    assert!(exited(run(&guard, "exit")));
    assert!(matches!(run(&guard, "exit"), Err(AstError::Poisoned { .. })));
    // An operator's kill says nothing of the source.
    assert_eq!(run(&guard, "kill"), Err(AstError::Fault(Fault::Killed { signal: 9 })));
    assert_eq!(run(&guard, "kill"), Err(AstError::Fault(Fault::Killed { signal: 9 })));
}

fn faults_open_the_breaker_and_syntax_errors_do_not() {
    let (clock, time) = Clock::manual();
    let guard = guard(small().build().unwrap()).clock(clock).build().unwrap();
    assert_eq!((guard.breaker().name(), guard.limiter().name()), ("ast_codegen", "ast_analysis"));
    for n in 0..30 {
        let error = run(&guard, &format!("refuse {n}")).unwrap_err();
        assert_eq!((error.class().category, error.class().severity), (Category::Validation, Severity::Medium));
    }
    assert!(matches!(run(&guard, &"(".repeat(300)), Err(AstError::Limit(LimitExceeded::Nesting { .. }))));
    assert_eq!(guard.breaker().state(), BreakerState::Closed);
    for n in 0..10 {
        assert_eq!(guard.breaker().state(), BreakerState::Closed, "after {n} faults");
        let error = run(&guard, &format!("panic {n}")).unwrap_err();
        assert_eq!((error.class().category, error.class().severity), (Category::Internal, Severity::High));
    }
    assert_eq!(guard.breaker().state(), BreakerState::Open);
    let error = run(&guard, "ok").unwrap_err();
    assert_eq!(error.to_string(), "circuit breaker `ast_codegen` is open; retry in 60.0s");
    // What is known needs no parser.
    assert!(matches!(run(&guard, "panic 3"), Err(AstError::Poisoned { .. })));
    assert!(matches!(run(&guard, "refuse 3"), Err(AstError::Refused(_))));
    // A probe sees whether parsing works all the same.
    assert!(guard.probe(Operation::Parse, "misbehaving", "ok").is_ok());
    time.advance(Duration::from_secs(60));
    assert_eq!(run(&guard, "ok 1"), Ok(()));
    assert_eq!(run(&guard, "ok 2"), Ok(()));
    assert_eq!(guard.breaker().state(), BreakerState::Closed);
}

fn faults_are_told_to_observers() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&heard);
    let observers = Observers::new().with(Arc::new(move |event: &Event<'_>| {
        if let Event::Notice { component, action, resource, severity, detail, .. } = event {
            log.lock().unwrap().push(format!("{component} {action} {resource} {severity} {detail}"));
        }
    }));
    let guard = guard(small().build().unwrap()).observers(observers).build().unwrap();
    for word in ["ok", "refuse", "panic", "panic"] {
        let _ = run(&guard, word);
    }
    assert_eq!(*heard.lock().unwrap(), ["ast parser_failed misbehaving:parse high the parser panicked: told to panic"]);
}

fn results_come_from_the_cache_the_second_time() {
    let pool = small().build().unwrap();
    let guard = guard(pool.clone()).build().unwrap();
    for _ in 0..3 {
        assert_eq!(run(&guard, "ok"), Ok(()));
        assert!(matches!(run(&guard, "refuse"), Err(AstError::Refused(Refusal::Syntax(_)))));
    }
    assert_eq!((pool.statistics().calls, guard.statistics().cache_hits), (2, 4));
    let uncached = AstGuard::builder(testkit::languages(), pool.clone()).cache(0, 0).build().unwrap();
    assert_eq!((run(&uncached, "ok"), run(&uncached, "ok")), (Ok(()), Ok(())));
    assert_eq!(pool.statistics().calls, 4);
}

fn each_tenant_has_its_own_rate() {
    let limiter = |name: &str| {
        let (clock, _) = Clock::manual();
        RateLimiter::builder(name).rate(2, Duration::from_secs(60)).burst(2).clock(clock).build().unwrap()
    };
    let first = guard(small().build().unwrap()).limiter(limiter("first")).build().unwrap();
    let second = first.with_limiter(limiter("second"));
    for guard in [&first, &second] {
        assert_eq!((run(guard, "ok"), run(guard, "ok")), (Ok(()), Ok(())));
        assert!(matches!(run(guard, "ok"), Err(AstError::Rejected(_))));
    }
    assert_eq!((first.statistics().rejected, first.statistics().calls), (2, 6));
}

fn a_guarded_batch_answers_in_order() {
    let guard = guard(small().build().unwrap()).build().unwrap();
    let deep = "(".repeat(300);
    let words = ["ok 1", "refuse", "abort", deep.as_str(), "ok 2", "ok 1", "abort"];
    let results = guard.run_batch(Operation::Parse, "misbehaving", &words);
    assert!(matches!(
        results.as_slice(),
        [
            Ok(_),
            Err(AstError::Refused(_)),
            Err(AstError::Fault(Fault::Crashed { .. })),
            Err(AstError::Limit(_)),
            Ok(_),
            Ok(_),
            Err(AstError::Poisoned { .. })
        ]
    ));
    let again = guard.run_batch(Operation::Parse, "misbehaving", &words);
    assert!(matches!(again[2], Err(AstError::Poisoned { .. })));
    assert_eq!(guard.statistics().cache_hits, 4);
}

fn a_language_the_workers_lack_is_a_configuration_error() {
    struct Stranger;
    impl parsercraft_guard::ast::Language for Stranger {
        fn name(&self) -> &'static str {
            "stranger"
        }
        fn lexis(&self) -> parsercraft_guard::ast::Lexis {
            parsercraft_guard::ast::Lexis::PLAIN
        }
        fn operations(&self) -> &'static [Operation] {
            &[]
        }
        fn run(
            &self,
            _: Operation,
            _: &str,
            _: &parsercraft_guard::ast::Cancel,
        ) -> Result<parsercraft_guard::ast::Output, Refusal> {
            Err(Refusal::Cancelled)
        }
    }
    let error = AstGuard::builder(testkit::languages().with(Stranger), small().build().unwrap()).build().unwrap_err();
    assert_eq!(
        error.to_string(),
        "`ast.languages` is stranger; allowed: languages that the workers know: give `worker::run_if_requested_with` the same ones"
    );
    let guard = guard(small().build().unwrap()).build().unwrap();
    let error = guard.run(Operation::Parse, "cobol", "x").unwrap_err();
    assert_eq!(error.to_string(), "no language is called `cobol`; known: formula, misbehaving, rust");
    let error = guard.run(Operation::GenerateWasm, "rust", "x").unwrap_err();
    assert_eq!(error.to_string(), "language `rust` does not offer `generate_wasm`; it offers: parse, control_flow");
}

/// A guard that lets nothing stop it but what the corpus does.
fn unhurried(pool: WorkerPool, limits: Limits) -> AstGuard {
    let breaker = CircuitBreaker::builder("ast_codegen").consecutive_failures(1_000_000).build().unwrap();
    let limiter =
        RateLimiter::builder("ast_analysis").rate(1_000_000, Duration::from_secs(1)).burst(1_000_000).build().unwrap();
    guard(pool).limits(limits).breaker(breaker).limiter(limiter).build().unwrap()
}

fn the_hostile_corpus_takes_nothing_down() {
    // Everything within the limits must be answered, not only survived: the default stack is part of the promise.
    let pool = WorkerPool::builder().workers(2).timeout(Duration::from_secs(60)).build().unwrap();
    let guard = unhurried(pool.clone(), Limits::default());
    // Units of one to six tokens come close to the longest chain allowed at one depth or another.
    let deep = [250, 2_700, 5_400, 8_000, 16_000, 100_000];
    let samples = deep.into_iter().flat_map(|depth| hostile::nested(depth).chain(hostile::chained(depth)));
    let mut answered = 0;
    for sample in hostile::corpus(100).chain(samples) {
        match guard.run(Operation::ControlFlow, "rust", &sample.source) {
            Ok(_) | Err(AstError::Refused(_)) => answered += 1,
            Err(AstError::Limit(_)) => {}
            Err(other) => panic!("{}: {other:?}", sample.name),
        }
    }
    assert!(answered > 300, "{answered}");
    assert_eq!(pool.statistics().lost, 0);
    assert!(guard.run(Operation::Parse, "rust", "fn f() {}").is_ok());
}

fn the_hostile_corpus_past_the_limits_costs_workers_only() {
    let pool = WorkerPool::builder().workers(2).stack_bytes(8 << 20).timeout(Duration::from_secs(60)).build().unwrap();
    let guard = unhurried(pool.clone(), Limits::NONE);
    let mut overflows = 0;
    for depth in [5_000, 100_000] {
        for sample in hostile::nested(depth).chain(hostile::chained(depth)) {
            match guard.run(Operation::Parse, "rust", &sample.source) {
                // Two samples come out the same, so the second one is known.
                Ok(_) | Err(AstError::Refused(_) | AstError::Poisoned { fault: Fault::StackOverflow }) => {}
                Err(AstError::Fault(Fault::StackOverflow)) => overflows += 1,
                Err(other) => panic!("{}: {other:?}", sample.name),
            }
        }
    }
    assert!(overflows > 50, "{overflows}");
    assert_eq!(pool.statistics().lost, overflows);
    assert!(guard.run(Operation::Parse, "rust", "fn f() {}").is_ok());
    assert!(matches!(guard.isolation(), Isolation::Processes(_)));
}

fn a_real_file_cut_off_anywhere_is_answered() {
    let pool = small().stack_bytes(64 << 20).build().unwrap();
    let guard = unhurried(pool, Limits::default());
    let source = include_bytes!("../src/ast/scan.rs");
    let samples: Vec<_> = hostile::truncated(source, 37).map(|sample| sample.source).collect();
    for batch in samples.chunks(50) {
        for result in guard.run_batch(Operation::Parse, "rust", batch) {
            assert!(matches!(result, Ok(_) | Err(AstError::Refused(_) | AstError::Limit(_))), "{result:?}");
        }
    }
}

//! Inputs made to hang, explode or overflow a checker: each must end in a typed answer.

use std::fmt::Write as _;

use parsercraft_guard::protocol::{
    Bounds, Budget, CheckError, Checker, Definitions, ExpressionError, Limit, ProtocolGuard, Universe, Verdict,
};
use proptest::prelude::*;
use resilience_core::BreakerState;

fn checker(definitions: &str) -> Checker {
    let definitions: Definitions = toml::from_str(definitions).unwrap();
    Checker::new(&definitions).unwrap_or_else(|errors| panic!("{errors}"))
}

fn limit(verdict: Verdict) -> Limit {
    match verdict {
        Verdict::OutOfFuel(limit) => limit,
        answer => panic!("{answer:?}"),
    }
}

#[test]
fn types_that_grow_with_each_unfolding_end_in_a_limit() {
    let checker = checker(
        r#"
        [protocols.Left]
        params = ["T"]
        methods.next = "() -> Left[list[T]]"
        [protocols.Right]
        params = ["T"]
        methods.next = "() -> Right[list[T]]"
        [protocols.Doubling]
        params = ["T"]
        methods.next = "() -> Doubling[Pair[T, T]]"
        [protocols.Doubled]
        params = ["T"]
        methods.next = "() -> Doubled[Pair[T, T]]"
        [types.Pair]
        params = ["A", "B"]
        [aliases]
        Grow = { params = ["T"], type = "list[Grow[list[T]]]" }
        Growing = { params = ["T"], type = "list[Growing[list[T]]]" }
        "#,
    );
    let size =
        |verdict| assert!(matches!(limit(verdict), Limit::Size { .. } | Limit::Depth { .. } | Limit::Fuel { .. }));
    size(checker.check_conformance("Left[int]", "Right[int]").unwrap());
    size(checker.check_conformance("Doubling[int]", "Doubled[int]").unwrap());
    size(checker.check_compatible("Grow[int]", "Growing[int]").unwrap());
    // And the checker still answers.
    assert!(checker.check_conformance("Left[int]", "Left[int]").unwrap().conforms());
    assert!(!checker.check_conformance("int", "Left[int]").unwrap().conforms());
}

#[test]
fn a_chain_deeper_than_any_stack_is_answered() {
    let mut definitions = String::new();
    for n in 0..1_500 {
        let next = (n + 1) % 1_500;
        write!(definitions, "[protocols.P{n}]\nmethods.next = '() -> P{next}'\n").unwrap();
        write!(definitions, "[types.T{n}]\nmethods.next = '() -> T{next}'\n").unwrap();
    }
    let checker = checker(&definitions);
    // The depth must not be the caller's problem, even on a small stack and in an unoptimised build.
    assert!(on_a_small_stack(move || checker.check_conformance("T0", "P0").unwrap()).conforms());
}

#[test]
fn deep_types_in_generic_methods_are_answered_on_a_small_stack() {
    let deep = |inner: &str| format!("{}{inner}{}", "list[".repeat(60), "]".repeat(60));
    let mut definitions = String::new();
    for n in 0..200 {
        let next = (n + 1) % 200;
        for name in ["P", "T"] {
            let kind = if name == "P" { "protocols" } else { "types" };
            let signature = format!("[A]({}, ({name}{next}) -> None) -> {name}{next} | {}", deep("A"), deep("A"));
            write!(definitions, "[{kind}.{name}{n}]\nmethods.next = ['{signature}', '(int) -> {name}{next}']\n")
                .unwrap();
        }
    }
    let checker = checker(&definitions);
    let verdict = on_a_small_stack(move || checker.check_conformance("T0", "P0").unwrap());
    assert!(verdict.conforms(), "{verdict:?}");
}

fn on_a_small_stack<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> T {
    std::thread::Builder::new().stack_size(512 * 1024).spawn(run).unwrap().join().unwrap()
}

#[test]
fn a_chain_past_the_depth_is_a_typed_answer() {
    let mut definitions = String::new();
    for n in 0..3_000 {
        write!(definitions, "[protocols.P{n}]\nmethods.next = '() -> P{}'\n", (n + 1) % 3_000).unwrap();
        write!(definitions, "[types.T{n}]\nmethods.next = '() -> T{}'\n", (n + 1) % 3_000).unwrap();
    }
    let checker = checker(&definitions);
    let verdict = checker.check_conformance("T0", "P0").unwrap();
    assert_eq!(limit(verdict), Limit::Depth { depth: 4_000 });
}

#[test]
fn a_long_path_is_explained_in_short() {
    let mut definitions = String::from("[protocols.P300]\nmethods.end = '() -> int'\n[types.T300]\n");
    for n in 0..300 {
        write!(definitions, "[protocols.P{n}]\nmethods.next = '() -> P{}'\n", n + 1).unwrap();
        write!(definitions, "[types.T{n}]\nmethods.next = '() -> T{}'\n", n + 1).unwrap();
    }
    let Verdict::Violates(violation) = checker(&definitions).check_conformance("T0", "P0").unwrap() else { panic!() };
    let text = violation.to_string();
    assert!(text.contains("… 569 more …") && text.len() < 1_000, "{text}");
    assert!(text.ends_with("`P300.end`: missing in `T300`"), "{text}");
}

#[test]
fn unions_that_multiply_end_by_fuel() {
    let union = |prefix: &str| (0..200).map(|n| format!("{prefix}{n}")).collect::<Vec<_>>().join(" | ");
    let mut definitions = String::new();
    for n in 0..200 {
        // Each refers to all, and none of one letter conforms to one of the other.
        for (name, own) in [("P", "y"), ("Q", "z")] {
            writeln!(definitions, "[protocols.{name}{n}]\nmethods.a = '({}) -> ({})'", union(name), union(name))
                .unwrap();
            writeln!(definitions, "methods.{own}{n} = '() -> int'").unwrap();
        }
    }
    let definitions: Definitions = toml::from_str(&definitions).unwrap();
    let ask = |fuel| {
        let universe = Universe::load(&definitions, &Bounds::default()).unwrap();
        let checker = Checker::with_budget(universe, Budget { fuel, ..Budget::default() }).unwrap();
        checker.check_conformance("P0", "Q0").unwrap()
    };
    assert_eq!(limit(ask(1_000)), Limit::Fuel { spent: 1_000 });
    // A "no" is remembered for good, so even this takes no more than the square of its size.
    assert!(matches!(ask(1_000_000), Verdict::Violates(_)));
}

#[test]
fn bombs_never_move_the_breaker() {
    let checker = checker(
        "[protocols.L]\nparams = ['T']\nmethods.n = '() -> L[list[T]]'\n[protocols.R]\nparams = ['T']\nmethods.n = '() -> R[list[T]]'",
    );
    let guard = ProtocolGuard::builder(checker).build().unwrap();
    for n in 0..50 {
        let nested = format!("{}int{}", "list[".repeat(n), "]".repeat(n));
        let verdict = guard.check_conformance(&format!("L[{nested}]"), &format!("R[{nested}]")).unwrap();
        assert!(!verdict.conforms());
    }
    assert_eq!(guard.breaker().state(), BreakerState::Closed);
}

#[test]
fn memory_is_bounded_and_answers_stay_right() {
    let definitions: Definitions = toml::from_str(
        "[protocols.Source]\nparams = ['out T']\nmethods.get = '() -> T'\n[types.Ints]\nmethods.get = '() -> int'",
    )
    .unwrap();
    let universe = Universe::load(&definitions, &Bounds::default()).unwrap();
    let checker = Checker::with_budget(universe, Budget { remembered: 1_000, ..Budget::default() }).unwrap();
    for n in 0..3_000 {
        // New names, new types, new texts with every question.
        let found = format!("(name{n}: int) -> Ints");
        assert!(checker.check_compatible(&found, &format!("(name{n}: int) -> Source[int]")).unwrap().conforms());
        assert!(!checker.check_compatible(&found, &format!("(other{n}: int) -> Source[int]")).unwrap().conforms());
    }
    let shown = format!("{checker:?}");
    assert!(shown.len() < 2_000_000, "{} bytes", shown.len());
}

#[test]
fn deep_and_long_expressions_are_refused_without_recursion() {
    let checker = checker("[protocols.P]");
    let question = |text: &str| match checker.check_conformance(text, "P") {
        Err(CheckError::Expression { error, .. }) => *error,
        other => panic!("{other:?}"),
    };
    for open in ["list[", "(", "() -> ", "[T: ", "(("] {
        let error = question(&open.repeat(800 / open.len()));
        assert!(matches!(error, ExpressionError::TooDeep { .. } | ExpressionError::Syntax { .. }), "{open}: {error}");
    }
    assert!(matches!(question(&"int | ".repeat(100_000)), ExpressionError::TooLong { .. }));
    assert!(matches!(question(&"?".repeat(100)), ExpressionError::Syntax { .. }));
    let types = checker.check_compatible(&format!("int{}", "?".repeat(1_000)), "int?").unwrap_err();
    assert!(matches!(types, CheckError::Expression { .. }), "{types}");
}

#[test]
fn questions_from_many_threads_get_the_same_answers() {
    let checker = checker(
        "[protocols.N]\nmethods.next = '() -> N | None'\n[types.A]\nmethods.next = '() -> B'\n[types.B]\nmethods.next = '() -> A | None'\n[types.C]\nmethods.next = '() -> C | int'",
    );
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let checker = checker.clone();
            scope.spawn(move || {
                for n in 0..500 {
                    assert!(checker.check_conformance("A", "N").unwrap().conforms());
                    assert!(!checker.check_conformance("C", "N").unwrap().conforms());
                    if n % 50 == thread {
                        checker.forget();
                    }
                }
            });
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_is_a_type_or_a_typed_error(text in r"[\[\](){}|?*=.,:> \-a-zA-Zé0-9\n]{0,60}") {
        let checker = checker("[protocols.P]");
        drop(checker.check_compatible(&text, "int"));
        drop(checker.check_compatible("int", &text));
    }

    #[test]
    fn what_is_explained_can_be_asked(text in r"(\((int|str|[a-z]: int = ...|\*, k: str|\*args: int)(, \*\*kw: int)?\) -> (int|str|None)|int|str|None)( \| (list\[int\]|None|bytes)){0,3}") {
        let checker = checker("[protocols.P]\nmethods.m = '() -> int'");
        let text = text.replace(", *, k: str, *", ", *");
        if let Ok(Verdict::Violates(violation)) = checker.check_compatible(&text, "P") {
            prop_assert!(!violation.to_string().is_empty());
            if let parsercraft_guard::protocol::Problem::Missing { found_in } = &violation.problem {
                prop_assert!(checker.check_compatible(found_in, found_in).unwrap().conforms());
            }
        }
    }
}

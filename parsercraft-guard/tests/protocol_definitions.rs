//! Definitions that must be refused, each with the message a user gets; and those that must not.

use std::fmt::Write as _;

use parsercraft_guard::protocol::{Bounds, Budget, CheckError, Checker, DefinitionError, Definitions, Universe};

fn refusal(definitions: &str) -> String {
    let definitions: Definitions = toml::from_str(definitions).unwrap();
    Universe::load(&definitions, &Bounds::default()).unwrap_err().to_string()
}

#[test]
fn unknown_types_arities_and_syntax_are_named_with_their_place() {
    let refusal = refusal(
        r#"
        [protocols.Reader]
        methods.read = ["(int) -> byte", "(int -> bytes", "int", "() -> list"]
        methods.close = []
        properties.size = "int["
        properties.names = "dict[str]"
        extends = ["Sized"]
        [aliases]
        Callback = "(x: int, x: int) -> None"
        Me = "Self"
        Order = "(int = ..., str) -> None"
        "#,
    );
    insta::assert_snapshot!(refusal, @r"
    in what `Reader` extends, `Sized`: unknown type `Sized`; allowed: a name under `types`, `protocols` or `aliases`, a type parameter in scope, or a built-in type
    in method `Reader.close`, `[]`: no overload at byte 0; allowed here: a signature such as `(int) -> str`
    in method `Reader.read`, `(int) -> byte`: unknown type `byte`; allowed: a name under `types`, `protocols` or `aliases`, a type parameter in scope, or a built-in type
    in method `Reader.read`, `(int -> bytes`: `-` at byte 5; allowed here: `)` or `,`
    in method `Reader.read`, `int`: a type at byte 0; allowed here: a signature such as `(int) -> str`
    in method `Reader.read`, `() -> list`: `list` got 0 type arguments; allowed: exactly 1
    in property `Reader.names`, `dict[str]`: `dict` got 1 type arguments; allowed: exactly 2
    in property `Reader.size`, `int[`: the end at byte 4; allowed here: a type name, `(` or `[`
    in alias `Callback`, `(x: int, x: int) -> None`: parameter `x` is declared twice; allowed: once
    in alias `Me`, `Self`: `Self` is only allowed in members of a type or protocol
    in alias `Order`, `(int = ..., str) -> None`: `)` at byte 15; allowed here: a default, as the parameter before it has one
    ");
}

#[test]
fn names_are_checked() {
    let refusal = refusal(
        r#"
        [protocols.Any]
        [protocols.Twice]
        [types.Twice]
        [types."two words"]
        [types.Both]
        methods.size = "() -> int"
        properties.size = "int"
        [aliases]
        Twice = "int"
        object = "int"
        "#,
    );
    insta::assert_snapshot!(refusal, @r"
    `Any` cannot be defined: `Any`, `Never`, `object` and `Self` have fixed meanings
    `Twice` is defined as a protocol and as a type; allowed: one definition per name
    `two words` is not a name; allowed: a letter or `_`, then letters, digits, `_` and `.`, at most 256 bytes, not `in` or `out`
    `Twice` is defined as a protocol and as an alias; allowed: one definition per name
    `object` cannot be defined: `Any`, `Never`, `object` and `Self` have fixed meanings
    ");
}

#[test]
fn a_method_and_a_property_of_one_name_are_refused() {
    let refusal = refusal("[types.Both]\nmethods.size = '() -> int'\nproperties.size = 'int'");
    insta::assert_snapshot!(refusal, @"`Both.size` is declared as a method and as a property; allowed: one of them");
}

#[test]
fn cycles_are_shown() {
    let extends = refusal(
        "[protocols.A]\nextends = ['B']\n[protocols.B]\nextends = ['C']\n[protocols.C]\nextends = ['B']\n\
         [aliases]\nX = 'Y | int'\nY = 'X'",
    );
    insta::assert_snapshot!(extends, @r"
    alias `X` stands for itself: X → Y → X; allowed: recursion inside type arguments or callables only
    `B` extends itself: B → C → B; allowed: extending without cycles
    ");
    let hidden = refusal("[aliases]\nId = { params = ['T'], type = 'T' }\nX = 'Id[X]'");
    insta::assert_snapshot!(hidden, @"alias `X` stands for itself: X → X; allowed: recursion inside type arguments or callables only");
}

#[test]
fn only_protocols_extend_into_protocols() {
    let refusal = refusal(
        "[types.T]\n[aliases]\nA = 'T'\n[protocols.P]\nextends = ['T']\n[types.U]\nextends = ['A', 'int | str', 'T']",
    );
    insta::assert_snapshot!(refusal, @r"
    `P` cannot extend `T`; allowed: protocols
    `U` cannot extend `A`; allowed: types and protocols
    `U` cannot extend `int | str`; allowed: types and protocols
    ");
}

#[test]
fn variance_must_fit_its_use() {
    let refusal = refusal(
        r#"
        [protocols.Source]
        params = ["out T"]
        methods.get = "() -> T"
        methods.put = "(T) -> None"
        [protocols.Sink]
        params = ["in T"]
        properties.last = { type = "T", readonly = true }
        [protocols.Cell]
        params = ["out T"]
        properties.value = "T"
        [protocols.Nested]
        params = ["out T"]
        methods.callback = "((T) -> None) -> None"
        methods.take = "(Source[T]) -> None"
        methods.alias = "(Pair[T]) -> None"
        [protocols.Listed]
        params = ["out T"]
        extends = ["Box[T]"]
        [protocols.Box]
        params = ["T"]
        [aliases]
        Pair = { params = ["A"], type = "dict[str, A] | Pair2[A]" }
        Pair2 = { params = ["A"], type = "list[A]" }
        "#,
    );
    insta::assert_snapshot!(refusal, @r"
    `Cell` declares `T` covariant (`out`), but uses it in `value`; allowed there: invariant
    `Listed` declares `T` covariant (`out`), but uses it in what it extends; allowed there: invariant
    `Nested` declares `T` covariant (`out`), but uses it in `alias`; allowed there: invariant
    `Nested` declares `T` covariant (`out`), but uses it in `take`; allowed there: contravariant (`in`) or invariant
    `Sink` declares `T` contravariant (`in`), but uses it in `last`; allowed there: covariant (`out`) or invariant
    `Source` declares `T` covariant (`out`), but uses it in `put`; allowed there: contravariant (`in`) or invariant
    ");
}

#[test]
fn overrides_must_fit_what_they_replace() {
    let refusal = refusal(
        r#"
        [protocols.Reader]
        methods.read = "(int) -> bytes"
        properties.size = "int"
        [protocols.Fine]
        extends = ["Reader"]
        methods.read = "(int | str) -> bytes"
        [protocols.Worse]
        extends = ["Reader"]
        methods.read = "(str) -> bytes"
        properties.size = { type = "int", readonly = true }
        [protocols.TextReader]
        methods.read = "(int) -> str"
        [protocols.Confused]
        extends = ["Reader", "TextReader"]
        "#,
    );
    insta::assert_snapshot!(refusal, @r"
    `Confused.read` does not fit the one inherited from `TextReader`: `TextReader.read` → return: expected `str`, found `bytes`
    `Worse.read` does not fit the one inherited from `Reader`: `Reader.read` → parameter 1: expected `int`, found `str`
    `Worse.size` does not fit the one inherited from `Reader`: `Reader.size`: must be mutable, is read-only in `Worse`
    ");
}

#[test]
fn bounds_of_type_parameters_are_enforced() {
    let definitions = r#"
        [protocols.Hashable]
        methods.hash = "() -> int"
        [types.Key]
        methods.hash = "() -> int"
        [types.Map]
        params = ["K: Hashable"]
    "#;
    let bad = format!("{definitions}\n[types.Bad]\nproperties.map = 'Map[int]'\nproperties.fine = 'Map[Key]'");
    insta::assert_snapshot!(refusal(&bad), @"in property `Bad.map`, `Map[int]`: `int` is not allowed for parameter `K` of `Map`: it must conform to `Hashable`");
    let checker = Checker::new(&toml::from_str(definitions).unwrap()).unwrap();
    let error = checker.check_compatible("Map[Key]", "Map[str]").unwrap_err();
    insta::assert_snapshot!(error, @"`Map[str]`: `str` is not allowed for parameter `K` of `Map`: it must conform to `Hashable`");
}

#[test]
fn reading_refuses_unknown_fields_duplicates_and_odd_shapes() {
    let read = |text: &str| serde_json::from_str::<Definitions>(text).unwrap_err().to_string();
    let errors = [
        read(r#"{"protocol": {}}"#),
        read(r#"{"types": {"A": {}, "A": {}}}"#),
        read(r#"{"types": {"A": {"methods": {"m": "() -> int", "m": "() -> str"}}}}"#),
        read(r#"{"types": {"A": {"methods": {"m": 7}}}}"#),
        read(r#"{"types": {"A": {"properties": {"p": {"type": "int", "readonl": true}}}}}"#),
        read(r#"{"aliases": {"A": []}}"#),
        read(r#"{"types": []}"#),
    ];
    insta::assert_snapshot!(errors.join("\n"), @r#"
    unknown field `protocol`, expected one of `protocols`, `types`, `aliases` at line 1 column 11
    `A` is defined twice; allowed: once at line 1 column 23
    `m` is defined twice; allowed: once at line 1 column 50
    a method is a signature such as "(n: int) -> str", a list of them (overloads), or a table with `overloads` (a list) and `optional` (true or false) at line 1 column 36
    a property is a type such as "int" (mutable), or a table with `type`, `readonly` and `optional` (true or false) at line 1 column 70
    an alias is a type such as "int | None", or a table with `params` (a list) and `type` at line 1 column 21
    invalid type: sequence, expected a table by name at line 1 column 10
    "#);
}

#[test]
fn definitions_survive_a_round_trip() {
    let text = r#"
        [protocols.P]
        params = ["out T"]
        methods.m = ["() -> T", "(int) -> T"]
        methods.o = { overloads = ["() -> T"], optional = true }
        properties.p = { type = "T", readonly = true }
        [types.T]
        properties.q = "int"
        [aliases]
        A = "P[int]"
        B = { params = ["X"], type = "P[X] | None" }
    "#;
    let definitions: Definitions = toml::from_str(text).unwrap();
    let json = serde_json::to_string(&definitions).unwrap();
    assert_eq!(serde_json::from_str::<Definitions>(&json).unwrap(), definitions);
    assert_eq!(toml::from_str::<Definitions>(&toml::to_string(&definitions).unwrap()).unwrap(), definitions);
    Checker::new(&definitions).unwrap();
}

#[test]
fn sizes_are_bounded() {
    let bounds = Bounds { definitions: 3, members: 2, params: 1, overloads: 1, ancestors: 1, ..Bounds::default() };
    let refusal = |text: &str| Universe::load(&toml::from_str(text).unwrap(), &bounds).unwrap_err().to_string();
    let errors = [
        refusal("types = { A = {}, B = {}, C = {}, D = {} }"),
        refusal("[types.A.properties]\na = 'int'\nb = 'int'\nc = 'int'"),
        refusal("[types.A.properties]\na = 'int'\nb = 'int'\n[types.B]\nextends = ['A']\nproperties.c = 'int'"),
        refusal("[types.A]\nparams = ['T', 'U']"),
        refusal("[types.A]\nmethods.m = ['() -> int', '(int) -> int']"),
        refusal("[types.A]\n[types.B]\nextends = ['A']\n[types.C]\nextends = ['B']"),
        refusal(&format!("[aliases]\nA = '{}int{}'", "list[".repeat(64), "]".repeat(64))),
        refusal(&format!("[aliases]\nA = '{}'", "x".repeat(4097))),
        refusal(&format!("[aliases]\nA = '{}'", vec!["int"; 257].join("|"))),
    ];
    insta::assert_snapshot!(errors.join("\n"), @r"
    the file has 4 definitions; allowed: up to 3
    `A` has 3 members; allowed: up to 2
    `B` has 3 members with inherited ones; allowed: up to 2
    `A` has 2 type parameters; allowed: up to 1
    `A.m` has 2 overloads; allowed: up to 1
    `C` has 2 ancestors; allowed: up to 1
    in alias `A`, `list[list[list[list[list[list[list[list[list[list[list[list[list[list[list[list[list[list[list[list[list[list[list[list[…`: the type nests more than 64 levels deep
    in alias `A`, `xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…`: the type is 4097 bytes long; allowed: up to 4096
    in alias `A`, `int|int|int|int|int|int|int|int|int|int|int|int|int|int|int|int|int|int|int|int|int|int|int|int|int|int|int|int|int|int|…`: 257 members in one union; allowed: up to 256
    ");
}

#[test]
fn a_flood_of_defects_makes_a_bounded_report() {
    let mut text = String::from("[types.A.properties]\n");
    for n in 0..900 {
        writeln!(text, "p{n} = 'nothing'").unwrap();
    }
    let errors = Universe::load(&toml::from_str(&text).unwrap(), &Bounds::default()).unwrap_err();
    assert_eq!(errors.as_slice().len(), 64);
    assert!(matches!(errors.as_slice()[0], DefinitionError::Expression { .. }));
}

#[test]
fn prelude_names_can_be_redefined_and_given_members() {
    let definitions: Definitions = toml::from_str(
        r#"
        [types.bool]
        extends = ["int"]
        [types.int]
        methods.hash = "() -> int"
        [protocols.Hashable]
        methods.hash = "() -> int"
        "#,
    )
    .unwrap();
    let checker = Checker::new(&definitions).unwrap();
    assert!(checker.check_conformance("bool", "Hashable").unwrap().conforms());
    assert!(!checker.check_conformance("str", "Hashable").unwrap().conforms());
    assert_eq!(checker.universe().protocols(), ["Hashable"]);
    assert!(checker.universe().types().contains(&"bytes"));
}

#[test]
fn questions_without_meaning_are_errors() {
    let checker = Checker::new(&toml::from_str("[protocols.P]\n[aliases]\nQ = 'P'").unwrap()).unwrap();
    let errors = [
        checker.check_conformance("Nope", "P").unwrap_err(),
        checker.check_conformance("int", "int").unwrap_err(),
        checker.check_conformance("int", "P | None").unwrap_err(),
        checker.check_conformance("list[int", "P").unwrap_err(),
        checker.check_conformance("", "P").unwrap_err(),
        checker.check_conformance("Self", "P").unwrap_err(),
        checker.check_all(&["int"], &["P", "str"]).unwrap_err(),
    ];
    let text: Vec<String> = errors.iter().map(ToString::to_string).collect();
    insta::assert_snapshot!(text.join("\n"), @r"
    `Nope`: unknown type `Nope`; allowed: a name under `types`, `protocols` or `aliases`, a type parameter in scope, or a built-in type
    `int` is not a protocol; allowed: a name under `protocols`, with its type arguments
    `P | None` is not a protocol; allowed: a name under `protocols`, with its type arguments
    `list[int`: the end at byte 8; allowed here: `]` or `,`
    ``: the end at byte 0; allowed here: a type name, `(` or `[`
    `Self`: `Self` is only allowed in members of a type or protocol
    `str` is not a protocol; allowed: a name under `protocols`, with its type arguments
    ");
    assert!(matches!(errors[1], CheckError::NotAProtocol { .. }));
}

#[test]
fn budgets_are_validated() {
    let with = |budget| {
        let universe = Universe::load(&Definitions::default(), &Bounds::default()).unwrap();
        Checker::with_budget(universe, budget).unwrap_err().to_string()
    };
    let errors = [
        with(Budget { fuel: 0, ..Budget::default() }),
        with(Budget { depth: 20_000, ..Budget::default() }),
        with(Budget { remembered: 5, ..Budget::default() }),
    ];
    insta::assert_snapshot!(errors.join("\n"), @r"
    `fuel` is 0; allowed: 1 to 10000000
    `depth` is 20000; allowed: 1 to 10000
    `remembered` is 5; allowed: 1000 to 100000000
    ");
}

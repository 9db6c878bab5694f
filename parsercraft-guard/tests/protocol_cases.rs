//! What conforms to what, feature by feature, as tables; the explanations are part of the behaviour.

use parsercraft_guard::protocol::{Checker, Definitions, Verdict};

/// One line for each question: `ok`, or the explanation.
fn answers(definitions: &str, questions: &[(&str, &str)]) -> String {
    let definitions: Definitions = toml::from_str(definitions).unwrap();
    let checker = Checker::new(&definitions).unwrap_or_else(|errors| panic!("{errors}"));
    let mut lines = Vec::new();
    for (found, expected) in questions {
        let answer = match checker.check_compatible(found, expected).unwrap() {
            Verdict::Conforms => "ok".to_owned(),
            Verdict::Violates(violation) => violation.to_string(),
            Verdict::OutOfFuel(limit) => limit.to_string(),
        };
        lines.push(format!("{found} <: {expected}: {answer}"));
    }
    lines.join("\n")
}

#[test]
fn methods_are_contravariant_in_parameters_and_covariant_in_returns() {
    let answers = answers(
        r#"
        [types.Animal]
        [types.Cat]
        extends = ["Animal"]
        [protocols.Shelter]
        methods.swap = "(Cat) -> Animal"
        [types.Exact]
        methods.swap = "(Cat) -> Animal"
        [types.Generous]
        methods.swap = "(Animal) -> Cat"
        [types.Picky]
        methods.swap = "(str) -> Animal"
        [types.Vague]
        methods.swap = "(Cat) -> object"
        [types.Lacking]
        methods.swapped = "(Cat) -> Animal"
        [types.NotAMethod]
        properties.swap = "int"
        [types.Attribute]
        properties.swap = "(Cat) -> Animal"
        "#,
        &[
            ("Exact", "Shelter"),
            ("Generous", "Shelter"),
            ("Picky", "Shelter"),
            ("Vague", "Shelter"),
            ("Lacking", "Shelter"),
            ("NotAMethod", "Shelter"),
            ("Attribute", "Shelter"),
            ("int", "Shelter"),
            ("Shelter", "Exact"),
        ],
    );
    insta::assert_snapshot!(answers, @r"
    Exact <: Shelter: ok
    Generous <: Shelter: ok
    Picky <: Shelter: `Shelter.swap` → parameter 1: expected `Cat`, found `str`
    Vague <: Shelter: `Shelter.swap` → return: expected `Animal`, found `object`
    Lacking <: Shelter: `Shelter.swap`: missing in `Lacking`
    NotAMethod <: Shelter: `Shelter.swap`: expected `(Cat) -> Animal`, found `int`, which cannot be called
    Attribute <: Shelter: ok
    int <: Shelter: `Shelter.swap`: missing in `int`
    Shelter <: Exact: expected `Exact`, found `Shelter`
    ");
}

#[test]
fn mutable_properties_are_invariant_and_read_only_ones_covariant() {
    let answers = answers(
        r#"
        [types.Animal]
        [types.Cat]
        extends = ["Animal"]
        [protocols.Owner]
        properties.pet = "Animal"
        [protocols.Viewer]
        properties.pet = { type = "Animal", readonly = true }
        [types.AnimalOwner]
        properties.pet = "Animal"
        [types.CatOwner]
        properties.pet = "Cat"
        [types.CatViewer]
        properties.pet = { type = "Cat", readonly = true }
        [types.Farmer]
        properties.pet = "Animal | int"
        [types.Method]
        methods.pet = "() -> Animal"
        "#,
        &[
            ("AnimalOwner", "Owner"),
            ("CatOwner", "Owner"),
            ("CatViewer", "Owner"),
            ("Farmer", "Owner"),
            ("AnimalOwner", "Viewer"),
            ("CatOwner", "Viewer"),
            ("CatViewer", "Viewer"),
            ("Farmer", "Viewer"),
            ("Method", "Viewer"),
            ("Owner", "Viewer"),
            ("Viewer", "Owner"),
        ],
    );
    insta::assert_snapshot!(answers, @r"
    AnimalOwner <: Owner: ok
    CatOwner <: Owner: `Owner.pet` → assignment: expected `Animal`, found `Cat`
    CatViewer <: Owner: `Owner.pet`: must be mutable, is read-only in `CatViewer`
    Farmer <: Owner: `Owner.pet` → alternative `int`: expected `Animal`, found `int`
    AnimalOwner <: Viewer: ok
    CatOwner <: Viewer: ok
    CatViewer <: Viewer: ok
    Farmer <: Viewer: `Viewer.pet` → alternative `int`: expected `Animal`, found `int`
    Method <: Viewer: `Viewer.pet`: expected `Animal`, found `() -> Animal`
    Owner <: Viewer: ok
    Viewer <: Owner: `Owner.pet`: must be mutable, is read-only in `Viewer`
    ");
}

#[test]
fn optional_members_may_be_missing_but_not_wrong() {
    let answers = answers(
        r#"
        [protocols.Configurable]
        properties.level = { type = "int", optional = true }
        methods.reset = { overloads = ["() -> None"], optional = true }
        [protocols.Leveled]
        properties.level = "int"
        [types.Plain]
        [types.Full]
        properties.level = "int"
        methods.reset = "() -> None"
        [types.Wrong]
        properties.level = "str"
        [types.Sometimes]
        properties.level = { type = "int", optional = true }
        "#,
        &[
            ("Plain", "Configurable"),
            ("Full", "Configurable"),
            ("Wrong", "Configurable"),
            ("Sometimes", "Configurable"),
            ("Sometimes", "Leveled"),
            ("Full", "Leveled"),
        ],
    );
    insta::assert_snapshot!(answers, @r"
    Plain <: Configurable: ok
    Full <: Configurable: ok
    Wrong <: Configurable: `Configurable.level`: expected `int`, found `str`
    Sometimes <: Configurable: ok
    Sometimes <: Leveled: `Leveled.level`: must always be there, is optional in `Sometimes`
    Full <: Leveled: ok
    ");
}

#[test]
fn protocols_compose_and_types_inherit() {
    let answers = answers(
        r#"
        [protocols.Reader]
        methods.read = "(n: int) -> bytes"
        [protocols.Closer]
        methods.close = "() -> None"
        [protocols.ReadCloser]
        extends = ["Reader", "Closer"]
        [types.Base]
        methods.read = "(n: int) -> bytes"
        [types.File]
        extends = ["Base"]
        methods.close = "() -> None"
        [types.Explicit]
        extends = ["ReadCloser"]
        "#,
        &[
            ("File", "ReadCloser"),
            ("File", "Base"),
            ("Base", "File"),
            ("Base", "ReadCloser"),
            ("Explicit", "ReadCloser"),
            ("ReadCloser", "Reader"),
            ("Reader", "ReadCloser"),
        ],
    );
    insta::assert_snapshot!(answers, @r"
    File <: ReadCloser: ok
    File <: Base: ok
    Base <: File: expected `File`, found `Base`
    Base <: ReadCloser: `ReadCloser.close`: missing in `Base`
    Explicit <: ReadCloser: ok
    ReadCloser <: Reader: ok
    Reader <: ReadCloser: `ReadCloser.close`: missing in `Reader`
    ");
}

#[test]
fn generics_vary_as_declared() {
    let answers = answers(
        r#"
        [types.Animal]
        [types.Cat]
        extends = ["Animal"]
        [protocols.Source]
        params = ["out T"]
        methods.get = "() -> T"
        [protocols.Sink]
        params = ["in T"]
        methods.put = "(T) -> None"
        [protocols.Cell]
        params = ["T"]
        extends = ["Source[T]", "Sink[T]"]
        [types.CatBox]
        methods.get = "() -> Cat"
        methods.put = "(Animal) -> None"
        [types.Box]
        params = ["T"]
        methods.get = "() -> T"
        methods.put = "(T) -> None"
        [types.CatBoxes]
        extends = ["Box[Cat]"]
        "#,
        &[
            ("Source[Cat]", "Source[Animal]"),
            ("Source[Animal]", "Source[Cat]"),
            ("Sink[Animal]", "Sink[Cat]"),
            ("Sink[Cat]", "Sink[Animal]"),
            ("Cell[Cat]", "Cell[Animal]"),
            ("Cell[Animal]", "Cell[Cat]"),
            ("CatBox", "Cell[Cat]"),
            ("CatBox", "Cell[Animal]"),
            ("Box[Cat]", "Cell[Cat]"),
            ("Box[Cat]", "Source[Animal]"),
            ("Box[Cat]", "Sink[Animal]"),
            ("CatBoxes", "Box[Cat]"),
            ("CatBoxes", "Box[Animal]"),
            ("CatBoxes", "Source[Animal]"),
            ("Cell[Cat]", "Source[Animal]"),
            ("list[Cat]", "list[Animal]"),
            ("Source[Source[Cat]]", "Source[Source[Animal]]"),
            ("Sink[Sink[Cat]]", "Sink[Sink[Animal]]"),
            ("Sink[Sink[Animal]]", "Sink[Sink[Cat]]"),
        ],
    );
    insta::assert_snapshot!(answers, @r"
    Source[Cat] <: Source[Animal]: ok
    Source[Animal] <: Source[Cat]: type argument 1: expected `Cat`, found `Animal`
    Sink[Animal] <: Sink[Cat]: ok
    Sink[Cat] <: Sink[Animal]: type argument 1: expected `Animal`, found `Cat`
    Cell[Cat] <: Cell[Animal]: type argument 1: expected `Animal`, found `Cat`
    Cell[Animal] <: Cell[Cat]: type argument 1: expected `Cat`, found `Animal`
    CatBox <: Cell[Cat]: ok
    CatBox <: Cell[Animal]: ok
    Box[Cat] <: Cell[Cat]: ok
    Box[Cat] <: Source[Animal]: ok
    Box[Cat] <: Sink[Animal]: `Sink.put` → parameter 1: expected `Animal`, found `Cat`
    CatBoxes <: Box[Cat]: ok
    CatBoxes <: Box[Animal]: type argument 1: expected `Animal`, found `Cat`
    CatBoxes <: Source[Animal]: ok
    Cell[Cat] <: Source[Animal]: ok
    list[Cat] <: list[Animal]: type argument 1: expected `Animal`, found `Cat`
    Source[Source[Cat]] <: Source[Source[Animal]]: ok
    Sink[Sink[Cat]] <: Sink[Sink[Animal]]: ok
    Sink[Sink[Animal]] <: Sink[Sink[Cat]]: type argument 1 → type argument 1: expected `Cat`, found `Animal`
    ");
}

#[test]
fn recursive_types_are_compared_co_inductively() {
    let answers = answers(
        r#"
        [protocols.Node]
        methods.next = "() -> Node | None"
        properties.value = { type = "int", readonly = true }
        [protocols.Even]
        methods.next = "() -> Odd"
        [protocols.Odd]
        methods.next = "() -> Even"
        [protocols.Ever]
        methods.next = "() -> Ever"
        [types.Linked]
        methods.next = "() -> Linked | None"
        properties.value = "int"
        [types.Ring]
        methods.next = "() -> Ring"
        properties.value = "int"
        [types.Broken]
        methods.next = "() -> Linked | str"
        properties.value = "int"
        [types.Deep]
        methods.next = "() -> Deeper | None"
        properties.value = "int"
        [types.Deeper]
        methods.next = "() -> Deep"
        properties.value = "str"
        [aliases]
        Json = "None | int | str | list[Json] | dict[str, Json]"
        Tree = "int | list[Tree]"
        "#,
        &[
            ("Linked", "Node"),
            ("Ring", "Node"),
            ("Broken", "Node"),
            ("Deep", "Node"),
            ("Even", "Odd"),
            ("Even", "Ever"),
            ("Ever", "Even"),
            ("Ring", "Ever"),
            ("Linked", "Ever"),
            ("list[Json]", "Json"),
            ("Tree", "Tree"),
            ("list[Tree]", "Tree"),
            ("Tree", "Json"),
            ("bytes", "Json"),
        ],
    );
    insta::assert_snapshot!(answers, @r"
    Linked <: Node: ok
    Ring <: Node: ok
    Broken <: Node: `Node.next` → return → alternative `str` → `Node.next`: missing in `str`
    Deep <: Node: `Node.next` → return → alternative `Deeper` → `Node.value`: expected `int`, found `str`
    Even <: Odd: ok
    Even <: Ever: ok
    Ever <: Even: ok
    Ring <: Ever: ok
    Linked <: Ever: `Ever.next` → return → alternative `None` → `Ever.next`: missing in `None`
    list[Json] <: Json: ok
    Tree <: Tree: ok
    list[Tree] <: Tree: ok
    Tree <: Json: alternative `list[Tree]`: expected `int | str | list[Json] | dict[str, Json] | None`, found `list[Tree]`
    bytes <: Json: expected `int | str | list[Json] | dict[str, Json] | None`, found `bytes`
    ");
}

#[test]
fn any_object_never_and_unions() {
    let answers = answers(
        "",
        &[
            ("Any", "int"),
            ("int", "Any"),
            ("int", "object"),
            ("object", "int"),
            ("Never", "int"),
            ("int", "Never"),
            ("int", "int | str"),
            ("int | str", "int"),
            ("int | str", "str | None | int"),
            ("int?", "int | None"),
            ("str", "int?"),
            ("None", "int?"),
            ("list[Any]", "list[int]"),
            ("list[int | str]", "list[str | int]"),
            ("() -> int", "object"),
            ("int | Any", "str"),
        ],
    );
    insta::assert_snapshot!(answers, @r"
    Any <: int: ok
    int <: Any: ok
    int <: object: ok
    object <: int: expected `int`, found `object`
    Never <: int: ok
    int <: Never: expected `Never`, found `int`
    int <: int | str: ok
    int | str <: int: alternative `str`: expected `int`, found `str`
    int | str <: str | None | int: ok
    int? <: int | None: ok
    str <: int?: expected `int`, found `str`
    None <: int?: ok
    list[Any] <: list[int]: ok
    list[int | str] <: list[str | int]: ok
    () -> int <: object: ok
    int | Any <: str: alternative `int`: expected `str`, found `int`
    ");
}

#[test]
fn callables_overloads_and_generic_methods() {
    let answers = answers(
        r#"
        [protocols.Convert]
        methods.convert = ["(int) -> str", "(str) -> int"]
        [types.Both]
        methods.convert = ["(str) -> int", "(int) -> str", "(bytes) -> bytes"]
        [types.One]
        methods.convert = "(int) -> str"
        [types.Two]
        methods.convert = ["(int) -> str", "(bytes) -> int"]
        [types.Wide]
        methods.convert = "(int | str) -> Never"
        [protocols.Callback]
        methods.__call__ = "(int) -> str"
        [types.Functor]
        methods.__call__ = "(object) -> str"
        [protocols.Mapper]
        methods.map = "[T](list[T], (T) -> int) -> list[int]"
        [types.GenericMapper]
        methods.map = "[A, B](list[A], (A) -> B) -> list[B]"
        [types.IntMapper]
        methods.map = "(list[int], (int) -> int) -> list[int]"
        "#,
        &[
            ("Both", "Convert"),
            ("One", "Convert"),
            ("Two", "Convert"),
            ("Wide", "Convert"),
            ("(object) -> str", "Callback"),
            ("(str) -> str", "Callback"),
            ("Functor", "(int) -> object"),
            ("Functor", "Callback"),
            ("int", "(int) -> object"),
            ("GenericMapper", "Mapper"),
            ("IntMapper", "Mapper"),
            ("Mapper", "GenericMapper"),
            ("[T](T) -> T", "(int) -> int"),
            ("[T](T) -> T", "(int) -> str"),
            ("[T](T) -> T", "[U](U) -> U"),
            ("[T](T, T) -> T", "(int, str) -> int | str"),
            ("(int) -> int", "[T](T) -> T"),
            ("[T](T?) -> T", "(int?) -> int"),
            ("[T: int](T) -> T", "(str) -> str"),
        ],
    );
    insta::assert_snapshot!(answers, @r"
    Both <: Convert: ok
    One <: Convert: `Convert.convert` → parameter 1: expected `str`, found `int`
    Two <: Convert: `Convert.convert`: overload 2 is served by none of the signatures: expected `(int) -> str & (str) -> int`, found `(int) -> str & (bytes) -> int`
    Wide <: Convert: ok
    (object) -> str <: Callback: ok
    (str) -> str <: Callback: `Callback.__call__` → parameter 1: expected `int`, found `str`
    Functor <: (int) -> object: ok
    Functor <: Callback: ok
    int <: (int) -> object: expected `(int) -> object`, found `int`, which cannot be called
    GenericMapper <: Mapper: ok
    IntMapper <: Mapper: `Mapper.map` → parameter 1 → type argument 1: expected `T`, found `int`
    Mapper <: GenericMapper: expected `GenericMapper`, found `Mapper`
    [T](T) -> T <: (int) -> int: ok
    [T](T) -> T <: (int) -> str: return: expected `str`, found `int`
    [T](T) -> T <: [U](U) -> U: ok
    [T](T, T) -> T <: (int, str) -> int | str: ok
    (int) -> int <: [T](T) -> T: parameter 1: expected `T`, found `int`
    [T](T?) -> T <: (int?) -> int: ok
    [T: int](T) -> T <: (str) -> str: bound of `T`: expected `int`, found `str`
    ");
}

#[test]
fn parameters_match_by_position_name_and_default() {
    let answers = answers(
        "",
        &[
            ("(a: int, b: str) -> None", "(int, str) -> None"),
            ("(int, str) -> None", "(a: int, b: str) -> None"),
            ("(x: int) -> None", "(y: int) -> None"),
            ("(int) -> None", "(int, str) -> None"),
            ("(int, str) -> None", "(int) -> None"),
            ("(int, str = ...) -> None", "(int) -> None"),
            ("(int) -> None", "(int = ...) -> None"),
            ("(int = ...) -> None", "(int = ...) -> None"),
            ("(*args: int) -> None", "(int, int) -> None"),
            ("(*args: int) -> None", "(int, str) -> None"),
            ("(*args: int) -> None", "(x: int) -> None"),
            ("(*args: int, **kwargs: int) -> None", "(x: int) -> None"),
            ("(int) -> None", "(*args: int) -> None"),
            ("(int = ..., *args: int) -> None", "(*args: int) -> None"),
            ("(*, key: int) -> None", "(*, key: int) -> None"),
            ("(key: int) -> None", "(*, key: int) -> None"),
            ("(*, key: str) -> None", "(*, key: int) -> None"),
            ("(*, key: int) -> None", "() -> None"),
            ("(*, key: int = ...) -> None", "() -> None"),
            ("() -> None", "(*, key: int) -> None"),
            ("(*, key: int) -> None", "(*, key: int = ...) -> None"),
            ("(**kwargs: int) -> None", "(*, key: int, other: int) -> None"),
            ("(**kwargs: int) -> None", "(**kwargs: str) -> None"),
            ("() -> None", "(**kwargs: str) -> None"),
            ("(...) -> int", "(int, str) -> int"),
            ("(int, str) -> int", "(...) -> int"),
            ("(...) -> str", "(int) -> int"),
        ],
    );
    insta::assert_snapshot!(answers, @r"
    (a: int, b: str) -> None <: (int, str) -> None: ok
    (int, str) -> None <: (a: int, b: str) -> None: parameter `a` is not accepted by that name: expected `(a: int, b: str) -> None`, found `(int, str) -> None`
    (x: int) -> None <: (y: int) -> None: parameter `y` is not accepted by that name: expected `(y: int) -> None`, found `(x: int) -> None`
    (int) -> None <: (int, str) -> None: parameter 2 is not accepted: expected `(int, str) -> None`, found `(int) -> None`
    (int, str) -> None <: (int) -> None: parameter 2 is required, but not passed: expected `(int) -> None`, found `(int, str) -> None`
    (int, str = ...) -> None <: (int) -> None: ok
    (int) -> None <: (int = ...) -> None: parameter 1 must have a default: expected `(int = ...) -> None`, found `(int) -> None`
    (int = ...) -> None <: (int = ...) -> None: ok
    (*args: int) -> None <: (int, int) -> None: ok
    (*args: int) -> None <: (int, str) -> None: parameter 2: expected `str`, found `int`
    (*args: int) -> None <: (x: int) -> None: parameter `x` is not accepted by that name: expected `(x: int) -> None`, found `(*args: int) -> None`
    (*args: int, **kwargs: int) -> None <: (x: int) -> None: ok
    (int) -> None <: (*args: int) -> None: parameter 1 is required, but not passed: expected `(*args: int) -> None`, found `(int) -> None`
    (int = ..., *args: int) -> None <: (*args: int) -> None: ok
    (*, key: int) -> None <: (*, key: int) -> None: ok
    (key: int) -> None <: (*, key: int) -> None: ok
    (*, key: str) -> None <: (*, key: int) -> None: parameter `key`: expected `int`, found `str`
    (*, key: int) -> None <: () -> None: parameter `key` is required, but not passed: expected `() -> None`, found `(*, key: int) -> None`
    (*, key: int = ...) -> None <: () -> None: ok
    () -> None <: (*, key: int) -> None: parameter `key` is not accepted by that name: expected `(*, key: int) -> None`, found `() -> None`
    (*, key: int) -> None <: (*, key: int = ...) -> None: parameter `key` must have a default: expected `(*, key: int = ...) -> None`, found `(*, key: int) -> None`
    (**kwargs: int) -> None <: (*, key: int, other: int) -> None: ok
    (**kwargs: int) -> None <: (**kwargs: str) -> None: `**kwargs`: expected `str`, found `int`
    () -> None <: (**kwargs: str) -> None: further keyword arguments are not accepted: expected `(**kwargs: str) -> None`, found `() -> None`
    (...) -> int <: (int, str) -> int: ok
    (int, str) -> int <: (...) -> int: ok
    (...) -> str <: (int) -> int: return: expected `int`, found `str`
    ");
}

#[test]
fn self_is_the_type_in_question() {
    let answers = answers(
        r#"
        [protocols.Clone]
        methods.clone = "() -> Self"
        [protocols.Comparable]
        methods.less = "(Self) -> bool"
        [types.Named]
        methods.clone = "() -> Named"
        methods.less = "(Named) -> bool"
        [types.Base]
        methods.clone = "() -> Base"
        methods.less = "(Base) -> bool"
        [types.Derived]
        extends = ["Base"]
        [types.Fluent]
        methods.clone = "() -> Self"
        [types.Wrong]
        methods.clone = "() -> Base"
        "#,
        &[
            ("Named", "Clone"),
            ("Named", "Comparable"),
            ("Derived", "Clone"),
            ("Derived", "Comparable"),
            ("Fluent", "Clone"),
            ("Wrong", "Clone"),
        ],
    );
    insta::assert_snapshot!(answers, @r"
    Named <: Clone: ok
    Named <: Comparable: ok
    Derived <: Clone: `Clone.clone` → return: expected `Derived`, found `Base`
    Derived <: Comparable: ok
    Fluent <: Clone: ok
    Wrong <: Clone: `Clone.clone` → return: expected `Wrong`, found `Base`
    ");
}

#[test]
fn an_answer_that_leaned_on_a_wrong_assumption_is_forgotten() {
    let definitions = r#"
        [protocols.P]
        methods.a = "() -> Q"
        methods.z = "() -> int"
        [protocols.Q]
        methods.b = "() -> P"
        [types.A]
        methods.a = "() -> B"
        [types.B]
        methods.b = "() -> A"
        "#;
    // While `A: P` is open, `B: Q` holds under the assumption that `A: P` does; `z` then shows that it does not.
    let answers = answers(definitions, &[("A", "P"), ("B", "Q"), ("A", "P")]);
    insta::assert_snapshot!(answers, @r"
    A <: P: `P.z`: missing in `A`
    B <: Q: `Q.b` → return → `P.z`: missing in `A`
    A <: P: `P.z`: missing in `A`
    ");
}

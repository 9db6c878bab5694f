//! A made-up universe of types and protocols whose conformance is known by construction, for drills, tests and benches.
//!
//! Every protocol has member names of its own, so a type conforms to the protocols it was built for and to no other. Types
//! vary what they may vary (wider parameters, narrower returns, extra members, inherited ones); a broken type differs by one
//! mutation, whose place in the explanation is known. The same seed gives the same universe.

use super::definition::{Definition, Definitions, FullMethod, FullProperty, Method, Property};

/// A universe and the truth about it.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The definitions.
    pub definitions: Definitions,
    /// Names of the types to ask about.
    pub types: Vec<String>,
    /// The protocols to ask about, with their type arguments.
    pub protocols: Vec<String>,
    /// The truth for each type and protocol, as in [`Matrix::answers`](super::Matrix::answers).
    pub truth: Vec<bool>,
    /// The broken types: what each is broken for, how, and where the explanation must point.
    pub mutants: Vec<Mutant>,
}

/// A type that fails one protocol by one mutation.
#[derive(Clone, Debug)]
pub struct Mutant {
    /// The type.
    pub ty: String,
    /// The protocol it would conform to, but for the mutation.
    pub protocol: String,
    /// What was changed, in words.
    pub mutation: &'static str,
    /// The text of the path in the explanation.
    pub path: String,
}

/// Generates `protocols` protocols and `types` types, about a third of them broken, from `seed`.
///
/// # Examples
///
/// ```
/// use parsercraft_guard::protocol::{Checker, generate};
///
/// let sample = generate(7, 10, 100);
/// let checker = Checker::new(&sample.definitions).unwrap();
/// let matrix = checker.check_all(&sample.types, &sample.protocols).unwrap();
/// let surprises = matrix.answers().iter().zip(&sample.truth).filter(|(answer, truth)| {
///     (**answer == parsercraft_guard::protocol::Answer::Conforms) != **truth
/// });
/// assert_eq!(surprises.count(), 0);
/// ```
pub fn generate(seed: u64, protocols: usize, types: usize) -> Sample {
    let mut random = Random(seed);
    let mut sample = Sample {
        definitions: Definitions::default(),
        types: Vec::new(),
        protocols: Vec::new(),
        truth: Vec::new(),
        mutants: Vec::new(),
    };
    for level in 0..CHAIN {
        let extends = if level == 0 { Vec::new() } else { vec![format!("Level{}", level - 1)] };
        let definition = Definition { extends, ..Definition::default() };
        sample.definitions.types.insert(format!("Level{level}"), definition);
    }
    let shapes: Vec<Vec<Shape>> = (0..protocols).map(|index| protocol(&mut random, index, &mut sample)).collect();
    if protocols == 0 {
        return sample;
    }
    for index in 0..types {
        let name = format!("Type{index}");
        let first = random.below(protocols);
        let second = random.below(protocols);
        // A broken type is built for one protocol, so that the mutation has one consequence.
        let broken = random.below(3) == 0;
        let built_for = if broken || first == second { vec![first] } else { vec![first, second] };
        let mut definition = Definition::default();
        let victim = random.below(shapes[first].len());
        for &protocol in &built_for {
            for (at, shape) in shapes[protocol].iter().enumerate() {
                let member = format!("p{protocol}_{}", shape.word());
                if broken && at == victim {
                    let (mutation, path) = shape.mutate(&mut random, &mut definition, &member, &name);
                    sample.mutants.push(Mutant {
                        ty: name.clone(),
                        protocol: sample.protocols[protocol].clone(),
                        mutation,
                        path: format!("`Protocol{protocol}.{member}`{path}"),
                    });
                } else {
                    shape.implement(&mut random, &mut definition, &member, &name);
                }
            }
        }
        if random.below(2) == 0 {
            let extra = Method::One("(int) -> str".to_owned());
            definition.methods.insert(format!("extra{index}"), extra);
        }
        if random.below(4) == 0 {
            // The same members, but inherited.
            let base = Definition { extends: Vec::new(), ..definition };
            definition = Definition { extends: vec![format!("Base{index}")], ..Definition::default() };
            sample.definitions.types.insert(format!("Base{index}"), base);
        }
        sample.definitions.types.insert(name.clone(), definition);
        sample.truth.extend((0..protocols).map(|protocol| !broken && built_for.contains(&protocol)));
        sample.types.push(name);
    }
    sample
}

/// Types `Level0` ⊇ `Level1` ⊇ …, to widen and narrow along.
const CHAIN: usize = 5;

/// Kinds of members, each once at most in a protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// `(Level2, named: Level2) -> Level2`.
    Method,
    /// A mutable `Level2`.
    Mutable,
    /// A read-only `Level2`.
    ReadOnly,
    /// An optional `int`.
    Optional,
    /// `() -> Protocol | None`, of the protocol itself.
    Recursive,
    /// Two overloads.
    Overloaded,
    /// A method that takes a callback.
    Callback,
    /// `[T](T, list[T]) -> T`.
    Generic,
    /// A read-only `Source[Level2]`, of a covariant generic protocol.
    Source,
}

const SHAPES: [Shape; 9] = [
    Shape::Method,
    Shape::Mutable,
    Shape::ReadOnly,
    Shape::Optional,
    Shape::Recursive,
    Shape::Overloaded,
    Shape::Callback,
    Shape::Generic,
    Shape::Source,
];

/// Adds protocol number `index`, in some cases composed of two or generic.
fn protocol(random: &mut Random, index: usize, sample: &mut Sample) -> Vec<Shape> {
    let source = Definition {
        params: vec!["out T".to_owned()],
        methods: [("get".to_owned(), Method::One("() -> T".to_owned()))].into(),
        ..Definition::default()
    };
    sample.definitions.protocols.entry("Source".to_owned()).or_insert(source);

    let mut shapes: Vec<Shape> = SHAPES.into_iter().filter(|_| random.below(2) == 0).collect();
    if !shapes.iter().any(|&shape| shape != Shape::Optional) {
        // Optional members alone would be met by every type.
        shapes.push(Shape::Method);
    }
    let name = format!("Protocol{index}");
    let generic = random.below(4) == 0;
    // In a generic one, `T` stands where others have `Level2`.
    let level = if generic { "T" } else { "Level2" };
    let this = if generic { format!("{name}[T]") } else { name.clone() };
    let mut whole = Definition::default();
    let mut half = Definition::default();
    let composed = !generic && random.below(3) == 0;
    for shape in &shapes {
        let member = format!("p{index}_{}", shape.word());
        // The explanation names the protocol asked about, wherever the member comes from.
        let target = if composed && random.below(2) == 0 { &mut half } else { &mut whole };
        shape.declare(target, &member, level, &this);
    }
    if composed {
        whole.extends.push(format!("Half{index}"));
        sample.definitions.protocols.insert(format!("Half{index}"), half);
    }
    if generic {
        whole.params.push("T".to_owned());
    }
    sample.definitions.protocols.insert(name.clone(), whole);
    sample.protocols.push(if generic { format!("{name}[Level2]") } else { name });
    shapes
}

impl Shape {
    fn word(self) -> &'static str {
        match self {
            Self::Method => "method",
            Self::Mutable => "mutable",
            Self::ReadOnly => "readonly",
            Self::Optional => "optional",
            Self::Recursive => "recursive",
            Self::Overloaded => "overloaded",
            Self::Callback => "callback",
            Self::Generic => "generic",
            Self::Source => "source",
        }
    }

    fn declare(self, protocol: &mut Definition, member: &str, level: &str, this: &str) {
        match self {
            Self::Method => {
                method(protocol, member, &format!("({level}, named: {level}) -> {level}"));
            }
            Self::Mutable => property(protocol, member, level, false, false),
            Self::ReadOnly => property(protocol, member, level, true, false),
            Self::Optional => property(protocol, member, "int", true, true),
            Self::Recursive => method(protocol, member, &format!("() -> {this} | None")),
            Self::Overloaded => {
                let overloads = vec![format!("({level}) -> {level}"), "(str) -> int".to_owned()];
                protocol.methods.insert(member.to_owned(), Method::Overloads(overloads));
            }
            Self::Callback => {
                method(protocol, member, &format!("(({level}) -> {level}) -> None"));
            }
            Self::Generic => method(protocol, member, "[T](T, list[T]) -> T"),
            Self::Source => property(protocol, member, &format!("Source[{level}]"), true, false),
        }
    }

    /// A member that fits, varied where that is allowed.
    fn implement(self, random: &mut Random, ty: &mut Definition, member: &str, this: &str) {
        let (wide, narrow) = (random.wider(), random.narrower());
        match self {
            Self::Method => match random.below(3) {
                0 => method(ty, member, &format!("({wide}, named: {wide}) -> {narrow}")),
                1 => {
                    method(ty, member, &format!("(x: {wide}, named: {wide}, y: int = ...) -> {narrow}"));
                }
                _ => method(ty, member, &format!("(*args: {wide}, **kwargs: {wide}) -> {narrow}")),
            },
            Self::Mutable => property(ty, member, "Level2", false, false),
            Self::ReadOnly => property(ty, member, &narrow, random.below(2) == 0, false),
            Self::Optional => match random.below(3) {
                0 => {}
                1 => property(ty, member, "int", true, true),
                _ => property(ty, member, "int", false, false),
            },
            Self::Recursive => {
                let returns = ["None", this, &format!("{this} | None")][random.below(3)].to_owned();
                method(ty, member, &format!("() -> {returns}"));
            }
            Self::Overloaded => {
                let mut overloads = vec!["(str) -> int".to_owned(), format!("({wide}) -> {narrow}")];
                if random.below(2) == 0 {
                    overloads.insert(0, "(bytes) -> bytes".to_owned());
                }
                let method = FullMethod { overloads, optional: false };
                ty.methods.insert(member.to_owned(), Method::Full(method));
            }
            // The callback's parameter is covariant again.
            Self::Callback => method(ty, member, &format!("(({narrow}) -> {wide}) -> None")),
            Self::Generic => {
                let signature = ["[A](A, list[A]) -> A", "[A, B](A, B) -> A", "(object, object) -> Never"];
                method(ty, member, signature[random.below(3)]);
            }
            Self::Source => property(ty, member, &format!("Source[{narrow}]"), true, false),
        }
    }

    /// A member that does not fit: what is wrong with it, and the path after the member.
    fn mutate(
        self,
        random: &mut Random,
        ty: &mut Definition,
        member: &str,
        this: &str,
    ) -> (&'static str, &'static str) {
        if self != Self::Optional && random.below(4) == 0 {
            return ("member removed", "");
        }
        let (wide, narrow) = (random.strictly_wider(), random.strictly_narrower());
        let choice = random.below(4);
        match (self, choice) {
            (Self::Method, 0) => {
                method(ty, member, &format!("({narrow}, named: Level2) -> Level2"));
                ("first parameter narrowed", " → parameter 1")
            }
            (Self::Method, 1) => {
                method(ty, member, &format!("(Level2, named: Level2) -> {wide}"));
                ("return widened", " → return")
            }
            (Self::Method, 2) => {
                method(ty, member, "(Level2, renamed: Level2) -> Level2");
                ("keyword renamed", "")
            }
            (Self::Method, _) => {
                method(ty, member, "(Level2, named: Level2, more: int) -> Level2");
                ("required parameter added", "")
            }
            (Self::Mutable, 0 | 1) => {
                property(ty, member, "Level2", true, false);
                ("made read-only", "")
            }
            (Self::Mutable, 2) => {
                property(ty, member, &narrow, false, false);
                ("mutable property narrowed", " → assignment")
            }
            (Self::Mutable, _) => {
                property(ty, member, &wide, false, false);
                ("mutable property widened", "")
            }
            (Self::ReadOnly, 0 | 1) => {
                property(ty, member, &wide, true, false);
                ("read-only property widened", "")
            }
            (Self::ReadOnly, _) => {
                property(ty, member, "Level2", true, true);
                ("made optional", "")
            }
            (Self::Optional, _) => {
                property(ty, member, "str", true, true);
                ("optional property of another type", "")
            }
            (Self::Recursive, 0 | 1) => {
                method(ty, member, "() -> Level0");
                ("recursion ends in another type", " → return")
            }
            (Self::Recursive, _) => {
                method(ty, member, &format!("(int) -> {this} | None"));
                ("required parameter added", "")
            }
            (Self::Overloaded, 0 | 1) => {
                let overloads = vec!["(bytes) -> int".to_owned(), "(Level2) -> Level2".to_owned()];
                ty.methods.insert(member.to_owned(), Method::Overloads(overloads));
                ("overload removed", "")
            }
            (Self::Overloaded, _) => {
                let overloads = vec!["(str) -> int".to_owned(), format!("(Level2) -> {wide}")];
                ty.methods.insert(member.to_owned(), Method::Overloads(overloads));
                ("overload's return widened", "")
            }
            (Self::Callback, 0 | 1) => {
                method(ty, member, &format!("(({wide}) -> Level2) -> None"));
                ("callback's parameter widened", " → parameter 1 → parameter 1")
            }
            (Self::Callback, _) => {
                method(ty, member, &format!("((Level2) -> {narrow}) -> None"));
                ("callback's return narrowed", " → parameter 1 → return")
            }
            (Self::Generic, 0 | 1) => {
                method(ty, member, "(int, list[int]) -> int");
                ("generic method made specific", " → parameter 1")
            }
            (Self::Generic, _) => {
                method(ty, member, "[A](A, list[A]) -> list[A]");
                ("generic return changed", " → return")
            }
            (Self::Source, _) => {
                property(ty, member, &format!("Source[{wide}]"), true, false);
                ("covariant argument widened", " → type argument 1")
            }
        }
    }
}

fn method(definition: &mut Definition, member: &str, signature: &str) {
    definition.methods.insert(member.to_owned(), Method::One(signature.to_owned()));
}

fn property(definition: &mut Definition, member: &str, ty: &str, readonly: bool, optional: bool) {
    let property = if readonly || optional {
        Property::Full(FullProperty { ty: ty.to_owned(), readonly, optional })
    } else {
        Property::Mutable(ty.to_owned())
    };
    definition.properties.insert(member.to_owned(), property);
}

/// `SplitMix64` (Steele, Lea, Flood 2014): the same numbers on every platform and in every version.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`; 0 when `end` is 0.
    fn below(&mut self, end: usize) -> usize {
        // The remainder of a 64-bit number by a small one is even enough here.
        usize::try_from(self.next() % end.max(1) as u64).unwrap_or(0)
    }

    fn wider(&mut self) -> String {
        ["Level2", "Level1", "Level0", "Level2 | int", "object"][self.below(5)].to_owned()
    }

    fn strictly_wider(&mut self) -> String {
        ["Level1", "Level0", "object"][self.below(3)].to_owned()
    }

    fn narrower(&mut self) -> String {
        ["Level2", "Level3", "Level4", "Level3 | Level4", "Never"][self.below(5)].to_owned()
    }

    fn strictly_narrower(&mut self) -> String {
        ["Level3", "Level4", "Never"][self.below(3)].to_owned()
    }
}

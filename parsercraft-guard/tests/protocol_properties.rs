//! Laws of the relation, and agreement with a model that computes it another way: by striking out, from all pairs of
//! types, those that fail one step, until nothing changes.

use std::collections::{BTreeMap, HashMap};

use parsercraft_guard::protocol::{
    Bounds, Budget, Checker, Definition, Definitions, FullProperty, Method, Property, Universe, Verdict,
};
use proptest::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Ty {
    Object,
    Never,
    Int,
    Str,
    Class(usize),
    Protocol(usize),
    List(Box<Ty>),
    Union(Vec<Ty>),
    Function(Vec<Ty>, Box<Ty>),
}

#[derive(Clone, Debug)]
struct Member {
    ty: Ty,
    readonly: bool,
}

type Members = BTreeMap<&'static str, Member>;

/// A universe without `Any`, optional members and `Self`: there, every law holds.
#[derive(Clone, Debug)]
struct World {
    /// Each with the class it extends, always an earlier one.
    classes: Vec<(Option<usize>, Members)>,
    protocols: Vec<Members>,
    questions: Vec<Ty>,
}

const CLASSES: usize = 4;
const PROTOCOLS: usize = 4;

fn ty() -> impl Strategy<Value = Ty> {
    let leaf = prop_oneof![
        1 => Just(Ty::Object),
        1 => Just(Ty::Never),
        2 => Just(Ty::Int),
        2 => Just(Ty::Str),
        4 => (0..CLASSES).prop_map(Ty::Class),
        6 => (0..PROTOCOLS).prop_map(Ty::Protocol),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|item| Ty::List(Box::new(item))),
            prop::collection::vec(inner.clone(), 2..4).prop_map(Ty::Union),
            (prop::collection::vec(inner.clone(), 0..3), inner)
                .prop_map(|(params, returns)| Ty::Function(params, Box::new(returns))),
        ]
    })
}

fn members() -> impl Strategy<Value = Members> {
    let member = (ty(), prop::bool::weighted(0.7)).prop_map(|(ty, readonly)| Member { ty, readonly });
    prop::collection::btree_map(prop::sample::select(vec!["a", "b", "c"]), member, 0..4)
}

fn world() -> impl Strategy<Value = World> {
    let name = prop::sample::select(vec!["a", "b", "c", "none"]);
    // Half of the classes mirror a protocol, class for protocol, less one member: almost conforming, so that answers
    // lean on each other and some turn out wrong late.
    let class = (prop::option::of(any::<prop::sample::Index>()), members(), prop::option::weighted(0.6, name));
    let classes = prop::collection::vec(class, CLASSES);
    let protocols = prop::collection::vec(members(), PROTOCOLS);
    (classes, protocols, prop::collection::vec(ty(), 6)).prop_map(|(drawn, protocols, mut questions)| {
        let mut classes: Vec<(Option<usize>, Members)> = Vec::new();
        for (index, (base, mut members, mirrored)) in drawn.into_iter().enumerate() {
            let base = if index == 0 || mirrored.is_some() { None } else { base.map(|base| base.index(index)) };
            if let Some(removed) = mirrored {
                members.clone_from(&protocols[index]);
                members.remove(removed);
                for member in members.values_mut() {
                    member.ty = mirror(&member.ty);
                }
            }
            if let Some(base) = base {
                // Whether an override fits is another test's question.
                let inherited = all_members(&classes, base);
                members.retain(|name, _| !inherited.contains_key(name));
            }
            classes.push((base, members));
        }
        questions.extend((0..CLASSES).map(Ty::Class));
        questions.extend((0..PROTOCOLS).map(Ty::Protocol));
        World { classes, protocols, questions }
    })
}

/// The same type with classes in place of protocols.
fn mirror(ty: &Ty) -> Ty {
    match ty {
        Ty::Protocol(index) => Ty::Class(*index),
        Ty::List(item) => Ty::List(Box::new(mirror(item))),
        Ty::Union(members) => Ty::Union(members.iter().map(mirror).collect()),
        Ty::Function(params, returns) => Ty::Function(params.iter().map(mirror).collect(), Box::new(mirror(returns))),
        other => other.clone(),
    }
}

fn all_members(classes: &[(Option<usize>, Members)], class: usize) -> Members {
    let (base, own) = &classes[class];
    let mut members = base.map(|base| all_members(classes, base)).unwrap_or_default();
    members.extend(own.clone());
    members
}

fn text(ty: &Ty) -> String {
    match ty {
        Ty::Object => "object".to_owned(),
        Ty::Never => "Never".to_owned(),
        Ty::Int => "int".to_owned(),
        Ty::Str => "str".to_owned(),
        Ty::Class(index) => format!("C{index}"),
        Ty::Protocol(index) => format!("P{index}"),
        Ty::List(item) => format!("list[{}]", text(item)),
        Ty::Union(members) => {
            let members: Vec<String> = members.iter().map(|member| format!("({})", text(member))).collect();
            members.join(" | ")
        }
        Ty::Function(params, returns) => {
            let params: Vec<String> = params.iter().map(text).collect();
            format!("({}) -> {}", params.join(", "), text(returns))
        }
    }
}

fn checker(world: &World) -> Checker {
    let definition = |members: &Members| {
        let mut definition = Definition::default();
        for (name, Member { ty, readonly }) in members {
            match ty {
                Ty::Function(..) if *readonly => {
                    definition.methods.insert((*name).to_owned(), Method::One(text(ty)));
                }
                _ => {
                    let property = FullProperty { ty: text(ty), readonly: *readonly, optional: false };
                    definition.properties.insert((*name).to_owned(), Property::Full(property));
                }
            }
        }
        definition
    };
    let mut definitions = Definitions::default();
    for (index, (base, members)) in world.classes.iter().enumerate() {
        let mut definition = definition(members);
        definition.extends.extend(base.map(|base| format!("C{base}")));
        definitions.types.insert(format!("C{index}"), definition);
    }
    for (index, members) in world.protocols.iter().enumerate() {
        definitions.protocols.insert(format!("P{index}"), definition(members));
    }
    Checker::new(&definitions).unwrap()
}

/// The greatest relation that every pair in it is justified by.
struct Model {
    index: HashMap<Ty, usize>,
    types: Vec<Ty>,
    holds: Vec<Vec<bool>>,
}

impl Model {
    fn new(world: &World) -> Self {
        let mut model = Self { index: HashMap::new(), types: Vec::new(), holds: Vec::new() };
        for ty in &world.questions {
            model.add(ty);
        }
        for members in world.classes.iter().map(|(_, members)| members).chain(&world.protocols) {
            for member in members.values() {
                model.add(&member.ty);
            }
        }
        let count = model.types.len();
        model.holds = vec![vec![true; count]; count];
        loop {
            let mut struck = Vec::new();
            for found in 0..count {
                for expected in 0..count {
                    if model.holds[found][expected] && !model.step(world, found, expected) {
                        struck.push((found, expected));
                    }
                }
            }
            if struck.is_empty() {
                return model;
            }
            for (found, expected) in struck {
                model.holds[found][expected] = false;
            }
        }
    }

    fn add(&mut self, ty: &Ty) {
        if self.index.contains_key(ty) {
            return;
        }
        self.index.insert(ty.clone(), self.types.len());
        self.types.push(ty.clone());
        match ty {
            Ty::List(item) => self.add(item),
            Ty::Union(members) => {
                for member in members {
                    self.add(member);
                }
            }
            Ty::Function(params, returns) => {
                for param in params {
                    self.add(param);
                }
                self.add(returns);
            }
            _ => {}
        }
    }

    fn fits(&self, found: &Ty, expected: &Ty) -> bool {
        self.holds[self.index[found]][self.index[expected]]
    }

    /// Whether the pair is justified, one level down, by the pairs not struck out.
    fn step(&self, world: &World, found: usize, expected: usize) -> bool {
        match (&self.types[found], &self.types[expected]) {
            (Ty::Never, _) | (_, Ty::Object) => true,
            (Ty::Union(members), expected) => members.iter().all(|member| self.fits(member, expected)),
            (found, Ty::Union(members)) => members.iter().any(|member| self.fits(found, member)),
            (found, Ty::Protocol(protocol)) => {
                let members = match found {
                    Ty::Class(class) => all_members(&world.classes, *class),
                    Ty::Protocol(protocol) => world.protocols[*protocol].clone(),
                    _ => Members::new(),
                };
                world.protocols[*protocol].iter().all(|(name, wanted)| {
                    members.get(name).is_some_and(|member| {
                        self.fits(&member.ty, &wanted.ty)
                            && (wanted.readonly || (!member.readonly && self.fits(&wanted.ty, &member.ty)))
                    })
                })
            }
            (Ty::Class(class), Ty::Class(target)) => {
                let mut class = Some(*class);
                while let Some(index) = class {
                    if index == *target {
                        return true;
                    }
                    class = world.classes[index].0;
                }
                false
            }
            (Ty::List(found), Ty::List(expected)) => self.fits(found, expected) && self.fits(expected, found),
            (Ty::Function(params, returns), Ty::Function(wanted, wanted_returns)) => {
                params.len() == wanted.len()
                    && params.iter().zip(wanted).all(|(param, wanted)| self.fits(wanted, param))
                    && self.fits(returns, wanted_returns)
            }
            (found, expected) => found == expected,
        }
    }
}

fn answer(checker: &Checker, found: &Ty, expected: &Ty) -> bool {
    match checker.check_compatible(&text(found), &text(expected)).unwrap() {
        Verdict::Conforms => true,
        Verdict::Violates(_) => false,
        Verdict::OutOfFuel(limit) => panic!("{limit}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_checker_agrees_with_the_greatest_fixed_point(world in world()) {
        let checker = checker(&world);
        let model = Model::new(&world);
        for found in &world.questions {
            for expected in &world.questions {
                prop_assert_eq!(
                    answer(&checker, found, expected),
                    model.fits(found, expected),
                    "{} <: {}", text(found), text(expected)
                );
            }
        }
    }

    #[test]
    fn answers_do_not_depend_on_what_was_asked_before(world in world(), order in any::<prop::sample::Index>()) {
        let (remembering, forgetting) = (checker(&world), checker(&world));
        let count = world.questions.len();
        let start = order.index(count * count);
        for n in 0..count * count {
            let at = (start + n * 7) % (count * count);
            let (found, expected) = (&world.questions[at / count], &world.questions[at % count]);
            let remembered = answer(&remembering, found, expected);
            forgetting.forget();
            let fresh = answer(&forgetting, found, expected);
            prop_assert_eq!(remembered, fresh, "{} <: {}", text(found), text(expected));
        }
    }

    #[test]
    fn compatibility_is_reflexive_and_transitive(world in world()) {
        let checker = checker(&world);
        let types = &world.questions;
        let fits: Vec<Vec<bool>> =
            types.iter().map(|a| types.iter().map(|b| answer(&checker, a, b)).collect()).collect();
        for a in 0..types.len() {
            prop_assert!(fits[a][a], "{}", text(&types[a]));
            for b in 0..types.len() {
                for c in 0..types.len() {
                    prop_assert!(
                        !(fits[a][b] && fits[b][c]) || fits[a][c],
                        "{} <: {} <: {}", text(&types[a]), text(&types[b]), text(&types[c])
                    );
                }
            }
        }
    }
}

/// Types over two generic protocols and one alias that may grow as they unfold.
fn growing(depth: u32) -> impl Strategy<Value = String> {
    let leaf = prop::sample::select(vec!["T", "int", "str", "Any", "Self"]).prop_map(str::to_owned);
    leaf.prop_recursive(depth, 12, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|a| format!("G0[{a}]")),
            inner.clone().prop_map(|a| format!("G1[{a}]")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("G2[{a}, {b}]")),
            inner.clone().prop_map(|a| format!("list[{a}]")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a} | ({b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a}) -> ({b})")),
            inner.clone().prop_map(|a| format!("[A](A, {a}) -> G1[A]")),
            (inner.clone(), inner).prop_map(|(a, b)| format!("Grow[({a}) | list[{b}]]")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_recursive_generic_universe_is_answered_within_fuel(bodies in prop::collection::vec(growing(3), 6)) {
        let protocol = |params: &[&str], members: &[&String]| Definition {
            params: params.iter().map(|param| (*param).to_owned()).collect(),
            properties: members
                .iter()
                .zip(["a", "b"])
                .map(|(ty, name)| {
                    let property = FullProperty { ty: (*ty).clone(), readonly: name == "a", optional: false };
                    (name.to_owned(), Property::Full(property))
                })
                .collect(),
            ..Definition::default()
        };
        let mut definitions = Definitions::default();
        definitions.protocols.insert("G0".to_owned(), protocol(&["T"], &[&bodies[0], &bodies[1]]));
        definitions.protocols.insert("G1".to_owned(), protocol(&["T"], &[&bodies[2], &bodies[3]]));
        definitions.protocols.insert("G2".to_owned(), protocol(&["T", "U"], &[&bodies[4], &bodies[5]]));
        let alias = r#"{"params": ["X"], "type": "list[Grow[list[X]]] | G0[X]"}"#;
        definitions.aliases.insert("Grow".to_owned(), serde_json::from_str(alias).unwrap());
        let universe = Universe::load(&definitions, &Bounds::default()).unwrap();
        let budget = Budget { fuel: 3_000, remembered: 5_000, ..Budget::default() };
        let checker = Checker::with_budget(universe, budget).unwrap();
        let types = ["G0[int]", "G1[int]", "G2[int, str]", "G2[str, int]", "G0[G1[int]]", "Grow[int]", "Grow[str]"];
        for found in types {
            for expected in types {
                let first = checker.check_compatible(found, expected).unwrap();
                // What was answered stays; more memory may turn "out of fuel" into an answer, never an answer into another.
                let again = checker.check_compatible(found, expected).unwrap();
                if !matches!(first, Verdict::OutOfFuel(_)) {
                    prop_assert_eq!(first, again);
                }
            }
        }
    }
}

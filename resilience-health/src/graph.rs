//! The dependencies between checks: a directed graph without circles, checked once when a monitor is built.
//! Answers which failing check explains another; decides nothing about status.

use std::collections::HashMap;

use crate::error::BuildError;
use crate::spec::CheckSpec;

/// The dependencies of every check, by index.
#[derive(Debug, Clone)]
pub(crate) struct Graph {
    depends_on: Vec<Vec<usize>>,
}

impl Graph {
    pub(crate) fn build(specs: &[CheckSpec]) -> Result<Self, BuildError> {
        let mut index = HashMap::new();
        for (at, spec) in specs.iter().enumerate() {
            if index.insert(spec.name.as_str(), at).is_some() {
                return Err(BuildError::DuplicateCheck { name: spec.name.clone() });
            }
        }
        let mut depends_on = Vec::with_capacity(specs.len());
        for spec in specs {
            let mut edges = Vec::with_capacity(spec.depends_on.len());
            for dependency in &spec.depends_on {
                let Some(at) = index.get(dependency.as_str()) else {
                    return Err(BuildError::UnknownDependency {
                        check: spec.name.clone(),
                        dependency: dependency.clone(),
                        registered: names(specs.iter().map(|spec| spec.name.as_str())),
                    });
                };
                if !edges.contains(at) {
                    edges.push(*at);
                }
            }
            depends_on.push(edges);
        }
        if let Some(cycle) = find_cycle(&depends_on) {
            let names = cycle.into_iter().map(|at| specs[at].name.clone()).collect();
            return Err(BuildError::DependencyCycle { names });
        }
        Ok(Self { depends_on })
    }

    /// The checks that explain why `check` fails: the failing ones at the ends of its paths of failing dependencies.
    /// Empty when none of its dependencies fails: then it is a root cause itself.
    pub(crate) fn roots(&self, check: usize, failing: &dyn Fn(usize) -> bool) -> Vec<usize> {
        let mut roots = Vec::new();
        let mut seen = vec![false; self.depends_on.len()];
        let mut stack: Vec<usize> = self.failing_dependencies(check, failing).collect();
        while let Some(at) = stack.pop() {
            if std::mem::replace(&mut seen[at], true) {
                continue;
            }
            let before = stack.len();
            stack.extend(self.failing_dependencies(at, failing));
            if stack.len() == before {
                roots.push(at);
            }
        }
        roots.sort_unstable();
        roots
    }

    fn failing_dependencies<'a>(
        &'a self,
        check: usize,
        failing: &'a dyn Fn(usize) -> bool,
    ) -> impl Iterator<Item = usize> + 'a {
        self.depends_on[check].iter().copied().filter(move |at| failing(*at))
    }
}

/// A list of names for a message, cut after 20.
pub(crate) fn names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let all: Vec<&str> = names.collect();
    match all.len() {
        0 => "none".to_owned(),
        1..=20 => all.join(", "),
        more => format!("{} and {} more", all[..20].join(", "), more - 20),
    }
}

/// Finds a circle by depth-first search without recursion: a chain of a million checks must not overflow the stack.
fn find_cycle(edges: &[Vec<usize>]) -> Option<Vec<usize>> {
    const NEW: u8 = 0;
    const ON_PATH: u8 = 1;
    const DONE: u8 = 2;
    let mut state = vec![NEW; edges.len()];
    for start in 0..edges.len() {
        if state[start] != NEW {
            continue;
        }
        let mut path: Vec<(usize, usize)> = vec![(start, 0)];
        state[start] = ON_PATH;
        while let Some((at, next)) = path.last_mut() {
            let at = *at;
            let Some(target) = edges[at].get(*next).copied() else {
                state[at] = DONE;
                path.pop();
                continue;
            };
            *next += 1;
            if state[target] == NEW {
                state[target] = ON_PATH;
                path.push((target, 0));
            } else if state[target] == ON_PATH {
                let mut cycle: Vec<usize> = path.iter().map(|(at, _)| *at).skip_while(|at| *at != target).collect();
                cycle.push(target);
                return Some(cycle);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn spec(name: &str, depends_on: &[&str]) -> CheckSpec {
        CheckSpec::readiness(name, || ()).depends_on(depends_on.iter().copied())
    }

    #[test]
    fn a_circle_is_named_from_end_to_end() {
        let specs = [spec("entry", &["a"]), spec("a", &["b"]), spec("b", &["c"]), spec("c", &["a"])];
        let error = Graph::build(&specs).unwrap_err();
        assert_eq!(error.to_string(), "checks depend on each other in a circle: a -> b -> c -> a");
        let error = Graph::build(&[spec("self", &["self"])]).unwrap_err();
        assert_eq!(error.to_string(), "checks depend on each other in a circle: self -> self");
    }

    #[test]
    fn a_diamond_is_no_circle_and_its_bottom_is_the_root_of_its_top() {
        let specs = [
            spec("top", &["left", "right"]),
            spec("left", &["bottom"]),
            spec("right", &["bottom"]),
            spec("bottom", &[]),
        ];
        let graph = Graph::build(&specs).expect("a diamond has no circle");
        assert_eq!(graph.roots(0, &|_| true), [3]);
        assert_eq!(graph.roots(0, &|at| at != 3), [1, 2]);
        assert_eq!(graph.roots(0, &|at| at == 0 || at == 3), Vec::<usize>::new(), "a healthy link in between hides it");
    }

    proptest! {
        #[test]
        fn a_circle_is_found_exactly_when_no_order_exists(
            edges in (1usize..9).prop_flat_map(|n| prop::collection::vec(prop::collection::vec(0..n, 0..3), n))
        ) {
            // The naive model: take away what depends on nothing, again and again.
            let mut left: Vec<usize> = (0..edges.len()).collect();
            loop {
                let kept: Vec<usize> =
                    left.iter().copied().filter(|at| edges[*at].iter().any(|to| left.contains(to))).collect();
                if kept.len() == left.len() {
                    break;
                }
                left = kept;
            }
            let cycle = find_cycle(&edges);
            prop_assert_eq!(cycle.is_some(), !left.is_empty());
            if let Some(cycle) = cycle {
                prop_assert_eq!(cycle.first(), cycle.last());
                prop_assert!(cycle.windows(2).all(|pair| edges[pair[0]].contains(&pair[1])));
            }
        }
    }
}

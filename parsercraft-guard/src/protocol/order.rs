//! Sorting a dependency graph so that what is depended on comes first, or naming a cycle.
//!
//! Iterative: a chain of ten thousand definitions must not need ten thousand stack frames.

/// The result of [`order`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Every node, after all it depends on.
    Sorted(Vec<usize>),
    /// Nodes that each depend on the next; the first is repeated at the end.
    Cycle(Vec<usize>),
}

/// Orders the nodes `0..edges.len()`, where `edges[n]` are the nodes that `n` depends on.
pub(crate) fn order(edges: &[Vec<usize>]) -> Order {
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        New,
        Open,
        Done,
    }
    let mut marks = vec![Mark::New; edges.len()];
    let mut sorted = Vec::with_capacity(edges.len());
    for root in 0..edges.len() {
        if marks[root] != Mark::New {
            continue;
        }
        marks[root] = Mark::Open;
        // Each node on the path, with how many of its edges were followed.
        let mut path = vec![(root, 0)];
        while let Some((node, followed)) = path.last_mut() {
            let node = *node;
            let Some(&next) = edges[node].get(*followed) else {
                marks[node] = Mark::Done;
                sorted.push(node);
                path.pop();
                continue;
            };
            *followed += 1;
            match marks[next] {
                Mark::Done => {}
                Mark::New => {
                    marks[next] = Mark::Open;
                    path.push((next, 0));
                }
                Mark::Open => {
                    let start = path.iter().position(|(on_path, _)| *on_path == next).unwrap_or(0);
                    let mut cycle: Vec<usize> = path[start..].iter().map(|(node, _)| *node).collect();
                    cycle.push(next);
                    return Order::Cycle(cycle);
                }
            }
        }
    }
    Order::Sorted(sorted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_depended_on_comes_first() {
        assert_eq!(order(&[vec![1, 2], vec![2], vec![]]), Order::Sorted(vec![2, 1, 0]));
    }

    #[test]
    fn a_cycle_is_named_without_its_approach() {
        assert_eq!(order(&[vec![1], vec![2], vec![1]]), Order::Cycle(vec![1, 2, 1]));
    }

    #[test]
    fn a_long_chain_needs_no_stack() {
        let edges: Vec<Vec<usize>> = (0..200_000).map(|n| if n == 199_999 { vec![] } else { vec![n + 1] }).collect();
        let Order::Sorted(sorted) = order(&edges) else { panic!("a chain is no cycle") };
        assert_eq!((sorted[0], sorted.len()), (199_999, 200_000));
    }
}

//! The registry cache against `kill -9`: a process that stores without pause is killed at random points.
//! Whatever is found afterwards under a name must be whole.

#![cfg(feature = "testkit")]

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use parsercraft_guard::registry::{Cache, Checksum, Lookup};

const FOLDER: &str = "REGISTRY_KILL_FOLDER";
const ENTRIES: usize = 24;

fn contents() -> Vec<(Checksum, Vec<u8>)> {
    let mut random = fastrand::Rng::with_seed(1);
    let content = |_| {
        let mut bytes = vec![0; random.usize(1..60_000)];
        random.fill(&mut bytes);
        (Checksum::of(&bytes), bytes)
    };
    (0..ENTRIES).map(content).collect()
}

/// Not a test of its own: the process that is killed. Does nothing unless started by the test below.
#[test]
fn child_that_stores_until_it_is_killed() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let cache = Cache::open(folder, u64::MAX).unwrap();
    let contents = contents();
    loop {
        for (number, (checksum, bytes)) in contents.iter().enumerate() {
            println!("storing {number}");
            let artifact = cache.store(checksum, bytes).unwrap();
            println!("stored {number}");
            // Removed again now and then, so that names come and go.
            if number % 3 == 0 {
                std::fs::remove_file(artifact.path()).unwrap();
            }
        }
    }
}

#[test]
fn killed_at_random_points_the_cache_never_holds_a_torn_file_under_a_name() {
    let folder = tempfile::tempdir().unwrap();
    let mut random = fastrand::Rng::with_seed(7);
    let contents = contents();
    let (mut hits, mut misses) = (0, 0);
    for round in 0..40 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_stores_until_it_is_killed", "--nocapture"])
            .env(FOLDER, folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut acknowledged = Vec::new();
        for _ in 0..random.usize(2..150) {
            let line = lines.next().expect("the child goes on until it is killed");
            // A line may carry the harness's own words in front.
            if let Some((_, number)) = line.rsplit_once("stored ") {
                acknowledged.push(number.parse::<usize>().unwrap());
            }
        }
        // Anywhere within the next steps: so many turns of a loop, not a pause.
        for _ in 0..random.u32(0..200_000) {
            std::hint::spin_loop();
        }
        child.kill().unwrap();
        child.wait().unwrap();

        let cache = Cache::open(folder.path(), u64::MAX).unwrap();
        for (number, (checksum, bytes)) in contents.iter().enumerate() {
            match cache.artifact(checksum).unwrap() {
                Lookup::Hit(artifact) => {
                    assert_eq!(&artifact.read().unwrap(), bytes);
                    hits += 1;
                }
                Lookup::Miss => {
                    let kept = number % 3 != 0 && acknowledged.contains(&number);
                    assert!(!kept, "round {round}: {number} was acknowledged and is gone");
                    misses += 1;
                }
                Lookup::Corrupt => panic!("round {round}: {number} is torn"),
            }
        }
    }
    assert!(hits > 0 && misses > 0, "the kills came at different points: {hits} hits, {misses} misses");
}

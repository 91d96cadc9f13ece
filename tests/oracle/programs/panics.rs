//! Rust panics: caught, through frames with drops, in a thread, and out of a closure.

use std::hint::black_box;
use std::panic::{catch_unwind, resume_unwind};

struct Dropped(u32);

impl Drop for Dropped {
    fn drop(&mut self) {
        black_box(leaf(self.0));
    }
}

#[inline(never)]
fn leaf(n: u32) -> u32 {
    black_box(n) * 3 + 1
}

#[inline(never)]
fn through(depth: u32, n: u32) -> u32 {
    let held = Dropped(depth);
    if depth == 0 {
        if n > 2 {
            resume_unwind(Box::new(n));
        }
        return leaf(n);
    }
    through(depth - 1, n) + leaf(held.0)
}

fn main() {
    let mut total = 0;
    for n in 1..4 {
        total += catch_unwind(|| through(3, n)).unwrap_or(7);
    }
    let mut words: Vec<u32> = (0..20).map(|n| leaf(n * 7 % 5)).collect();
    words.sort_by(|a, b| leaf(*a).cmp(&leaf(*b)));
    let other = std::thread::spawn(|| through(2, 1)).join().unwrap_or(1);
    println!("{}", total + other + words[3]);
}

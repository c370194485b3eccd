//! Random numbers that a seed repeats: xorshift64* (Vigna, 2014). For the tests
//! and for all that times an engine.

#![allow(dead_code, unreachable_pub, reason = "each uses a part of it")]

/// A generator.
#[derive(Clone, Debug)]
pub struct Random {
    /// Never 0.
    state: u64,
}

impl Random {
    /// The generator of a seed.
    pub fn new(seed: u64) -> Random {
        let mut random = Random { state: (seed ^ 0x9E37_79B9_7F4A_7C15).max(1) };
        random.next();
        random.next();
        random
    }

    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `end`; 0 when there is none.
    pub fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 16) % end.max(1)
    }

    /// A number below `end`, few often and most seldom: the continuous form of a
    /// zipfian law, spread over all numbers.
    pub fn zipfian(&mut self, end: u64, skew: f64) -> u64 {
        let fraction = (self.next() >> 11) as f64 / (1u64 << 53) as f64;
        let power = 1.0 - skew;
        let rank = ((end as f64).powf(power) - 1.0) * fraction + 1.0;
        (rank.powf(1.0 / power) as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) % end
    }

    /// A number from `first` to `last`.
    pub fn between(&mut self, first: usize, last: usize) -> usize {
        first + self.below((last - first) as u64 + 1) as usize
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }

    /// Another generator, so that how many numbers one part draws does not
    /// change what the others get.
    pub fn fork(&mut self) -> Random {
        Random::new(self.next())
    }
}

//! Rotary position embedding: by which angles positions turn queries and keys. Angles come from repeated multiplication in `f32`, as in
//! llama.cpp.

/// One way to turn; a model may have several.
#[derive(Debug, Clone)]
pub(crate) struct Rope {
    pub(crate) base: f32,
    /// Dimensions of a head that are rotated.
    pub(crate) dims: usize,
    /// Positions are divided by this.
    pub(crate) divisor: f32,
}

/// All ways of a model.
#[derive(Debug, Clone)]
pub(crate) struct Rotary {
    pub(crate) ropes: Vec<Rope>,
    /// Factors that angles are divided by, as Llama 3.1 has them.
    pub(crate) factors: Option<Vec<f32>>,
}

impl Rotary {
    /// For each position the cosines of its angles, and then their sines: as many numbers as dimensions are rotated.
    pub(crate) fn table(&self, rope: &Rope, positions: impl Iterator<Item = usize> + Clone) -> Vec<f32> {
        let half = rope.dims / 2;
        let step = libm::powf(rope.base, -2.0 / rope.dims as f32);
        let mut table = vec![0.0; positions.clone().count() * rope.dims];
        for (position, row) in positions.zip(table.chunks_exact_mut(rope.dims)) {
            let (cosines, sines) = row.split_at_mut(half);
            let mut theta = position as f32 / rope.divisor;
            for i in 0..half {
                let angle = self.factors.as_ref().map_or(theta, |factors| theta / factors[i]);
                (cosines[i], sines[i]) = (libm::cosf(angle), libm::sinf(angle));
                theta *= step;
            }
        }
        table
    }
}

//! The stages as they are documented, one after the other, in f64 and with a full sort: what the sampler is held against.

use super::TokenMask;
use crate::request::GenerateRequest;

/// What was said so far.
pub(super) struct Said<'a> {
    pub(super) prompt: &'a [u32],
    pub(super) answer: &'a [u32],
    pub(super) allowed: Option<&'a [u32]>,
}

/// Probabilities of all tokens after all stages; and whether a filter cut so close that rounding may decide.
pub(super) fn probabilities(request: &GenerateRequest, said: &Said<'_>, logits: &[f32]) -> (Vec<f64>, bool) {
    let scores = scores(request, said, logits);
    let mut order: Vec<usize> = (0..scores.len()).filter(|id| scores[*id].is_finite()).collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]).then(a.cmp(b)));
    if request.temperature == 0.0 {
        order.truncate(1);
    }
    order.truncate(request.top_k.unwrap_or(usize::MAX));
    let best = order.first().map_or(0.0, |id| scores[*id]);
    let temperature = if request.temperature == 0.0 { 1.0 } else { f64::from(request.temperature) };
    let weight = |id: usize| ((scores[id] - best) / temperature).exp();
    let total: f64 = order.iter().map(|id| weight(*id)).sum();
    let mut close = false;
    let near = |a: f64, b: f64| (a - b).abs() < 3e-6 * b.abs();

    let top_p = f64::from(request.top_p) * total;
    if request.top_p < 1.0 {
        let (mut sum, mut kept) = (0.0, 0);
        for id in &order {
            sum += weight(*id);
            kept += 1;
            close |= near(sum, top_p);
            if sum >= top_p {
                break;
            }
        }
        order.truncate(kept);
    }
    let min_p = f64::from(request.min_p);
    close |= min_p > 0.0 && order.iter().any(|id| weight(*id) != 1.0 && near(weight(*id), min_p));
    order.retain(|id| weight(*id) >= min_p);

    let total: f64 = order.iter().map(|id| weight(*id)).sum();
    let mut probabilities = vec![0.0; scores.len()];
    for id in order {
        probabilities[id] = weight(id) / total;
    }
    (probabilities, close)
}

fn scores(request: &GenerateRequest, said: &Said<'_>, logits: &[f32]) -> Vec<f64> {
    let mut scores: Vec<f64> = logits.iter().map(|logit| f64::from(*logit)).collect();
    for (id, bias) in request.logit_bias.iter() {
        scores[*id as usize] += f64::from(*bias);
    }
    for (id, score) in (0_u32..).zip(&mut scores) {
        let times = said.answer.iter().filter(|token| **token == id).count() as f64;
        if times > 0.0 || said.prompt.contains(&id) {
            let penalty = f64::from(request.repetition_penalty);
            *score = if *score > 0.0 { *score / penalty } else { *score * penalty };
        }
        if times > 0.0 {
            *score -= f64::from(request.presence_penalty) + f64::from(request.frequency_penalty) * times;
        }
        if said.allowed.is_some_and(|allowed| !allowed.contains(&id)) {
            *score = f64::NEG_INFINITY;
        }
    }
    scores
}

/// A mask that allows the same tokens always, and notes what it hears.
#[derive(Clone)]
pub(super) struct Fixed {
    pub(super) allowed: Vec<u32>,
    pub(super) heard: std::sync::Arc<std::sync::Mutex<Vec<u32>>>,
}

impl TokenMask for Fixed {
    fn allowed(&mut self, allowed: &mut super::TokenSet) {
        assert!((0..300_000).all(|id| !allowed.contains(id)), "it must be empty");
        self.allowed.iter().for_each(|id| allowed.insert(*id));
    }

    fn accept(&mut self, token: u32) {
        self.heard.lock().unwrap().push(token);
    }

    fn copy(&self) -> Box<dyn TokenMask> {
        Box::new(self.clone())
    }
}

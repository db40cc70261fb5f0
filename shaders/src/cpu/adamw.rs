use super::sizes;
use crate::params;

/// One step of AdamW with decoupled weight decay, as in `torch.optim.AdamW`, with a gradient that is scaled and then
/// clipped.
///
/// `squares` is the sum of squares of the unscaled gradient. If it is not finite, nothing changes.
///
/// Shapes: grad, w, m and v `[count]`, squares `[1]`.
pub fn adamw(p: &params::Adamw, grad: &[f32], squares: &[f32], w: &mut [f32], m: &mut [f32], v: &mut [f32]) {
    if !squares[0].is_finite() {
        return;
    }
    let [count] = sizes([4 * p.count4]);
    let [lr, beta1, beta2, eps, decay] = [p.lr, p.beta1, p.beta2, p.eps, p.decay].map(f64::from);
    let [bias1, bias2, clip, scale] = [p.bias1, p.bias2, p.clip, p.scale].map(f64::from);
    let norm = scale * f64::from(squares[0]).sqrt();
    let clipped = if clip > 0.0 { (clip / (norm + 1e-6)).min(1.0) } else { 1.0 };
    for i in 0..count {
        let g = scale * clipped * f64::from(grad[i]);
        let m_new = beta1 * f64::from(m[i]) + (1.0 - beta1) * g;
        let v_new = beta2 * f64::from(v[i]) + (1.0 - beta2) * g * g;
        let step = m_new / bias1 / (v_new.sqrt() / bias2.sqrt() + eps);
        w[i] = (f64::from(w[i]) * (1.0 - lr * decay) - lr * step) as f32;
        m[i] = m_new as f32;
        v[i] = v_new as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::noise::assert_close;

    const P: params::Adamw = params::Adamw {
        count4: 1,
        lr: 0.125,
        beta1: 0.75,
        beta2: 0.9375,
        eps: 1e-8,
        decay: 0.5,
        bias1: 0.25,
        bias2: 0.0625,
        clip: 0.0,
        scale: 0.5,
    };

    fn stepped(p: &params::Adamw, grad: [f32; 4], squares: f32) -> [[f32; 4]; 3] {
        let (mut w, mut m, mut v) = ([1.0, 2.0, -4.0, 0.0], [0.0; 4], [0.0; 4]);
        adamw(p, &grad, &[squares], &mut w, &mut m, &mut v);
        [w, m, v]
    }

    #[test]
    fn first_step_has_the_length_of_the_learning_rate() {
        // The step does not depend on the size of the gradient; weight decay comes on top.
        let grad = [8.0, -2.0, 1e-3, 0.0];
        let [w, m, v] = stepped(&P, grad, 68.0);
        let decayed = 1.0 - 0.125 * 0.5;
        assert_close(&w, &[decayed - 0.125, 2.0 * decayed + 0.125, -4.0 * decayed - 0.125, 0.0], 1e-5);
        assert_close(&m, &grad.map(|g| 0.25 * 0.5 * g), 1e-7);
        assert_close(&v, &grad.map(|g| 0.0625 * 0.25 * g * g), 1e-7);
    }

    #[test]
    fn constant_gradient_keeps_the_step_length() {
        let (mut w, mut m, mut v) = ([0.0; 4], [0.0; 4], [0.0; 4]);
        for t in 1..=20 {
            let [bias1, bias2] = [P.beta1, P.beta2].map(|beta| 1.0 - beta.powi(t));
            let p = params::Adamw { bias1, bias2, decay: 0.0, ..P };
            adamw(&p, &[3.0, -3.0, 0.5, -0.5], &[18.5], &mut w, &mut m, &mut v);
            assert_close(&w, &[-1.0, 1.0, -1.0, 1.0].map(|v| v * 0.125 * t as f32), 1e-5);
        }
    }

    #[test]
    fn gradient_is_clipped_to_the_norm() {
        let grad = [6.0, 0.0, -8.0, 0.0];
        // The scaled norm is 5.
        let [_, m, _] = stepped(&params::Adamw { clip: 2.5, ..P }, grad, 100.0);
        assert_close(&m, &grad.map(|g| 0.25 * 0.25 * g), 1e-6);
        assert_eq!(stepped(&params::Adamw { clip: 5.5, ..P }, grad, 100.0), stepped(&P, grad, 100.0));
    }

    #[test]
    fn non_finite_norm_changes_nothing() {
        for squares in [f32::NAN, f32::INFINITY] {
            assert_eq!(stepped(&P, [f32::NAN, 1.0, 2.0, 3.0], squares), [[1.0, 2.0, -4.0, 0.0], [0.0; 4], [0.0; 4]]);
        }
    }
}

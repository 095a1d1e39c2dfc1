"""Each rule once. Limits are relative to the model's own output gradient; what other tools use stands in docs/calibration.md."""

from __future__ import annotations

from collections.abc import Mapping

from gradflow.rules.rule import Rule, choose

_TABLE = (
    Rule(
        code="GF101", name="vanishing-gradient", note=0.03, warning=1e-3, error=1e-6, below=True, neutral=1.0,
        what="The gradient norm at a layer's output against that at the model's output, in a band that widens with depth; notes on the first layer alone. The "
        "layer at which most of it is lost is named, or what each loses.",
        example='nn.Sequential(*[nn.Sequential(nn.Linear(64, 64), nn.Sigmoid()) for _ in range(30)])',
        why="The layer receives next to nothing of the gradient that leaves the loss, so it does not learn.",
        fix="Use a non-saturating activation, an initialisation of gain 1, a normalisation, or a skip connection around the layers after it.",
    ),
    Rule(
        code="GF102", name="exploding-gradient", note=30.0, warning=1e3, error=1e7, neutral=1.0,
        what="The gradient norm at a layer's output against that at the model's output, where it grows; notes on the first layer alone.",
        example='for layer in linears: nn.init.normal_(layer.weight, std=1.0)      # width 64: a gain of 8 a layer',
        why="The gradient grows on its way to the layer: one step overshoots, and clipping would starve every other layer.",
        fix="Lower the initialisation gain or normalise; where there are skips, scale the residual branches by 1/sqrt(number of blocks).",
    ),
    Rule(
        code="GF103", name="non-finite-gradient", error=0.0,
        what="Infinities and NaN in the gradient at a layer's output, in a weight or in its gradient.",
        example='torch.sqrt(x.relu())                # the derivative of sqrt is infinite at 0',
        why="An inf or nan in one gradient turns every weight before it into nan at the first step.",
        fix="Look for a division, log, sqrt or norm at 0, or an overflow in half precision, right after the layer named first: the backward pass met it there.",
    ),
    Rule(
        code="GF104", name="unreached-parameter", warning=0.0,
        what='Trainable parameters that no gradient reaches, with the reason: cut, not called, not on the way to the loss.',
        example='def forward(self, x): return self.head(self.body(x).detach())',
        why="The parameter is trainable and never receives a gradient: it stays as it was initialised.",
        fix="Let the parameter's output reach the loss (remove what cuts it), or freeze the parameter with requires_grad_(False).",
    ),
    Rule(
        code="GF105", name="closed-branch",
        what='Layers whose every path to the loss is multiplied by a parameter that is zero, or by small ones that a skip leads around.',
        example='x + self.scale * self.branch(x)     # scale = nn.Parameter(torch.zeros(1)): ReZero',
        why="A zero-initialised scale multiplies the branch by 0: its layers get no gradient in the first step, the scale does, and the branch opens. Healthy.",
        fix="Nothing to mend.",
    ),
    Rule(
        code="GF106", name="closed-trunk", severity_without_limit="warning",
        what="Layers whose every path to the loss is multiplied by a parameter that is zero, and that no skip leads around. A small one there is GF101.",
        example='nn.init.zeros_(self.head.weight)',
        why="A parameter that is zero, such as a zero-initialised head, blocks all gradient in the first step; how it flows behind it cannot be seen.",
        fix="Profile after one training step, with --weights, or with the parameter initialised.",
    ),
    Rule(
        code="GF107", name="silent-loss", error=0.0,
        what="Whether there is a gradient at the model's output at all.",
        example='loss = (output > 0).float().mean()  # or a loss that is 0 on this batch',
        why="The gradient at the model's output is 0 or nothing was measured: no statement about any layer is possible.",
        fix="Use a loss whose gradient is not 0 on this batch, or --loss probe.",
    ),
    Rule(
        code="GF108", name="zero-gradient", severity_without_limit="error",
        what="Layers that lead to the loss and receive a gradient of exactly 0, with the nearest layer or operator after them that passes none on.",
        example="nn.init.constant_(self.linear.bias, -10.0)      # and a ReLU after it: no input gets through",
        why="Nothing that lies before a dead activation learns, however long the training; a gradient of 0 does not grow again.",
        fix="Look at what is named as the cause: a ReLU whose inputs are all negative, a saturated gate, a clamp, a mask that hides everything.",
    ),
    Rule(
        code="GF109", name="dead-units", warning=0.9,
        what="The share of a linear layer's units, or of a convolution's channels, whose weights receive a gradient of exactly 0, in every batch.",
        example="nn.init.constant_(self.linear.bias[:950], -10.0)      # of 1000 units, before a ReLU",
        why="A unit that no sample wakes does not learn and gives nothing to the layers after it.",
        fix="Lower the learning rate or the bias that killed them, or use an activation that leaks (LeakyReLU, GELU); profile more --batches to be sure.",
    ),
    Rule(
        code="GF110", name="half-precision-underflow", warning=0.1,
        what="In a run in float16: the share of a layer's gradient that the format cannot tell from 0, under the loss scale. (bfloat16 has float32's range.)",
        example="model.half(); loss = loss_function(model(x)) * 1e-7",
        why="What is smaller than 3e-8 turns into 0: the weights before it stop moving, and nothing says so.",
        fix="Use a gradient scaler or a larger loss scale, run the layer in float32, or train in bfloat16.",
    ),
    Rule(
        code="GF111", name="unbalanced-updates", warning=1e5, most=0.0,
        what="‖∇W‖/‖W‖ of each matrix against the median of all, where its layer's gradient does not explain it; inside a branch it may be smaller, "
        "unless ‖W‖ is large.",
        example="nn.init.normal_(layer.weight, std=100)      # and a LayerNorm after it, which hides it",
        why="One learning rate moves all weights: what suits the others leaves this one as it is, or throws it far away.",
        fix="Give the parameter a learning rate of its own, an optimiser that normalises updates (Adam), or the initialisation of its fan-in.",
    ),
    Rule(
        code="GF112", name="dominating-sample", warning=0.99,
        what="The largest share of one sample in the gradient at the model's output and in that of the first weighted layer; batches of 4 samples or more. "
        "A note where its input is not large and a small step would fit it: late in a training that is the one sample left when all others are fitted.",
        example="batch[3] *= 1e4",
        why="The step follows this sample and not the batch: usually it was not normalised, or its label is wrong.",
        fix="Look at the sample named here; normalise the inputs, clip the gradient per sample, or use a loss that grows more slowly.",
    ),
    Rule(
        code="GF113", name="frozen-parameters", severity_without_limit="info",
        what="Parameters with requires_grad=False: a note, or a warning where they are most of the model and half of them stand in a row "
        "between others that train.",
        example="model.requires_grad_(False); model.head.requires_grad_(True); model.stem.requires_grad_(True)",
        why="They stay as they are. After pretraining that is fine-tuning; in a model that starts from random weights it is an accident.",
        fix="Call requires_grad_(True) on what should train; if freezing it is meant, ignore this rule.",
    ),
    Rule(
        code="GF201", name="attenuating-skip", warning=0.95, below=True, most=0.0, tolerance=0.05, neutral=1.0,
        what='λ of a skip, or the sum of the λ between one fork and one join, below 1; a note where norms on the trunk make up for it.',
        example='0.5 * x + self.branch(x)',
        why="The skip passes on less than it receives; over many blocks the loss compounds exponentially.",
        fix="Make the skip an identity (λ = 1): remove the factor or the gate on the shortcut, or scale the branch instead.",
    ),
    Rule(
        code="GF202", name="amplifying-skip", warning=1.05, most=0.0, tolerance=0.05, neutral=1.0,
        what='λ of a skip above 1.',
        example='x + (x + self.branch(x))',
        why="The skip passes on more than it receives; over many blocks the gain compounds exponentially.",
        fix="Make the skip an identity (λ = 1), or follow the sum with a normalisation as DeepNorm does.",
    ),
    Rule(
        code="GF208", name="detached-skip", error=0.0,
        what='Skips that are added in the forward pass and cut in the backward pass.',
        example='x.detach() + self.branch(x)',
        why="The skip is there in the forward pass and cut in the backward pass: the gradient has to go through the branch, as in a plain network.",
        fix="Remove the detach(), .data or no_grad() that is named here; if the gradient is meant to stop there, ignore this rule.",
    ),
    Rule(
        code="GF203", name="transforming-skip", severity_without_limit="warning",
        what="Skips that pass through a weighted layer although fork and join have the same shape.",
        example="self.shortcut(x) + self.branch(x)   # shortcut = nn.Conv2d(64, 64, 1)",
        why="An identity would do there: the layer's random matrix keeps neither the direction nor, over many blocks, the norm of the gradient.",
        fix="Use an identity shortcut wherever the shapes allow it (He et al. 2016, Table 1: 6.6 % error against 12.2 %).",
    ),
    Rule(
        code="GF204", name="noisy-skip", severity_without_limit="warning",
        what="Skips with dropout or stochastic depth on their path.",
        example="F.dropout(x, 0.5) + self.branch(x)",
        why="Every block drops a part of what the highway carries; over many blocks each coordinate is dropped somewhere.",
        fix="Put dropout on the branch.",
    ),
    Rule(
        code="GF205", name="operator-on-the-trunk",
        what="Activations and norms between one sum and the next fork, block after block: on the highway and not on a branch.",
        example="F.relu(x + self.branch(x))",
        why="Whatever lies on the trunk acts on the gradient in every block: a ReLU masks half of it, a norm rescales it.",
        fix="Nothing, if the highway's gain is what you want; else move it into the branch (pre-activation, pre-norm).",
    ),
    Rule(
        code="GF209", name="opposing-branch", warning=0.1, below=True, tolerance=0.25, neutral=1.0,
        what="Blocks whose branch cancels what the skip sends back: the total gradient against the skip's.",
        example="x - self.branch(x)                  # branch near the identity",
        why="A skip guarantees nothing by itself: with a branch that works against it less arrives at the fork than the skip sent.",
        fix="Look at cos(skip, branch) and the branch's gain: a smaller initialisation of the branch's last layer stops the cancellation.",
    ),
    Rule(
        code="GF210", name="deep-branch",
        what="Branches with more than eight weighted layers in a row and no skip of their own.",
        example="x + nn.Sequential(*[nn.Sequential(nn.Linear(64, 64), nn.Sigmoid()) for _ in range(10)])(x)",
        why="The skip relieves what lies before the block and not what lies inside: within the branch the gradient goes through every layer.",
        fix="Split the branch into several residual blocks.",
    ),
    Rule(
        code="GF211", name="mute-branch",
        what="Branches that send back next to nothing of the gradient at their join, without a zero-initialised or small scale of the branch that explains it.",
        example="x + 1e-8 * self.branch(x)",
        why="The block is the identity to the gradient: its layers hardly learn.",
        fix="Scale the branch up, or remove the block.",
    ),
    Rule(
        code="GF212", name="dominating-branch", warning=100.0, tolerance=0.25,
        what="Branches that send back a hundred times what arrives at their join.",
        example="x + 100 * self.branch(x)",
        why="The block works as if it had no skip, and over several blocks the gradient explodes.",
        fix="Scale the branch by 1/sqrt(number of blocks), or normalise inside it.",
    ),
    Rule(
        code="GF301", name="shattered-gradient", note=3e-3, warning=1e-3, below=True,
        what="What the layers that no live skip leads around leave of the correlation between two inputs' gradients, were each a wide ReLU layer.",
        example="nn.Sequential(*[nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU()) for _ in range(56)])",
        why="From one input to the next the gradient turns into noise: batches average it away, and plain nets of this depth train worse than shallow ones.",
        fix="Lead an identity skip around every two or three layers; measure it with gradflow shatter.",
    ),
    Rule(
        code="GF302", name="fluctuating-gradient", warning=0.5,
        what="The standard deviation, over 4 or more --batches, of the decades of a layer's gain, against ½·√(5 Σ 1/n)/ln 10 of the widths n after it.",
        example="x * torch.exp(3 * x.mean())      # a gate over the whole batch",
        why="Between one batch and the next the layer's gradient changes its size by more than the widths of the net explain: no learning rate fits both.",
        fix="Use larger batches or wider layers, or normalise what the gradient passes through after this layer.",
    ),
    Rule(
        code="GF206", name="starved-highway", warning=1e-3, error=1e-6, below=True, most=1.0, neutral=1.0,
        what="The gradient that reaches a highway's first fork with every branch cut; a warning at most where the branches make up for it.",
        example='54 blocks of  0.5 * x + self.branch(x)',
        why="With the branches cut, next to nothing gets through the skips: what reaches the early layers went through every branch.",
        fix="Set λ = 1 on the skips named here, and keep activations and norms off the trunk between the sums.",
    ),
    Rule(
        code="GF207", name="exploding-highway", warning=1e3, error=1e6, most=1.0, neutral=1.0,
        what="The gradient that reaches a highway's first fork with every branch cut, where the skips alone made it grow.",
        example='54 blocks of  2 * x + self.branch(x)',
        why="With the branches cut, the skips alone amplify the gradient out of bounds.",
        fix="Set λ = 1 on the skips named here, or normalise after the sum.",
    ),
)  # fmt: skip

RULES: Mapping[str, Rule] = {rule.code: rule for rule in sorted(_TABLE, key=lambda rule: rule.code)}
EVERY = choose(RULES)

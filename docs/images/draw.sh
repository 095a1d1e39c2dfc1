#!/usr/bin/env bash
# Draws every picture of the docs with the gradflow on the PATH. Sick models exit with 1, which is their point.
cd "$(dirname "$0")/../.."
for name in residual_cnn half_skip_cnn sigmoid_mlp small_gpt diseases/{exploding,detached,zero_gradient,non_finite,post_ln,dominating,closed}; do
  gradflow profile "docs/examples/$name.py" --png "docs/images/$(basename "$name").png" > /dev/null
  [ $? -le 1 ] || exit 1
done
gradflow shatter gradflow.zoo:shattering_mlp --png docs/images/shattering_mlp.png > /dev/null || exit 1
draw() {  # NAME [--theme T] TARGET OPTIONS...
  gradflow profile "${@:2}" --png "docs/images/$1.png" > /dev/null
  [ $? -le 1 ] || exit 1
}
draw dead_units docs/examples/diseases/dead_units.py --batches 4
draw resnet50 torchvision:resnet50 --input 2x3x64x64
draw resnet50_dark torchvision:resnet50 --input 2x3x64x64 --theme dark
draw half_resnet110 gradflow.zoo:preact_resnet --arg depth=110 --arg shortcut=scaled --arg scale=0.5 --input 4x3x16x16
draw half_gpt gradflow.zoo:pre_ln_transformer --arg blocks=24 --arg width=32 --arg vocab=64 --arg causal=True --arg skip_scale=0.5 --input 'int64[2,32]<64'
draw unet docs/examples/unet.py
draw resnet1004 gradflow.zoo:preact_resnet --arg depth=1004 --arg 'stages=(4,8,16)' --input 2x3x8x8
draw lstm docs/examples/lstm_cell.py
stored=$(mktemp -d)
for name in half_skip_cnn residual_cnn; do
  gradflow profile "docs/examples/$name.py" --json "$stored/$name.json" > /dev/null
  [ $? -le 1 ] || exit 1
done
gradflow diff "$stored/half_skip_cnn.json" "$stored/residual_cnn.json" --png docs/images/mended.png > /dev/null || exit 1
rm -r "$stored"
python docs/examples/train_digits.py --save docs/images/digits.png > /dev/null || exit 1
python docs/examples/train_digits.py --rate 2.5 --save docs/images/digits_dying.png > /dev/null || exit 1

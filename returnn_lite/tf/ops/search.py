from returnn_lite.tf.context import Context, Family
lowers = Family()

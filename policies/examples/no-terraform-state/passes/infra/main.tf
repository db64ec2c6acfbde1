resource "null_resource" "nothing" {}

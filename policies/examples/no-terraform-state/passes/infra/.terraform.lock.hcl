# Kept up to date by `terraform init`.

"""An order is charged, reserved, approved and announced, while everything around it fails."""

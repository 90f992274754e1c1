"""What a run would cost before any hardware is bought: shapes, exchanges, time and memory."""

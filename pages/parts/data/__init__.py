"""What the Data page says and draws: findings, previews, statistics, changes."""

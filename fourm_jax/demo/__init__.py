"""What a page for people is made of, without the page: forms, answers, examples."""
